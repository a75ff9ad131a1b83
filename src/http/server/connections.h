#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <list>

namespace relay::http {

class Connections;

/// One connection, as `Connections` sees it.
class ListedConnection {
 public:
  virtual ~ListedConnection() = default;

 private:
  friend class Connections;
  /// Called at most once, after it has left the list.
  virtual void close() = 0;

  std::list<ListedConnection*>* list_ = nullptr;  // null: it has left
  std::list<ListedConnection*>::iterator place_;
  std::chrono::steady_clock::time_point since_;  // when it came into its state
  std::size_t unread_ = 0;                       // bytes of an answer that the client has not taken
};

/// Open connections: those that wait for their client (for a request, or to take an answer) and
/// those that wait for a worker, each in the order in which they came into that state. Where there
/// are too many, the first one of the longer list is closed. So clients of one kind, however many
/// connections they open, do not push out those of the other kind. A connection that came into its
/// state a moment ago is not closed for another one: so a client has the time to send its request
/// and to be answered, even where there is room for few. One thread.
class Connections {
 public:
  std::size_t size() const { return for_client_.size() + for_worker_.size(); }
  std::size_t unread() const { return unread_; }

  /// It waits for its client.
  void enter(ListedConnection& one);
  /// Does nothing where it has left already.
  void leave(ListedConnection& one);
  /// `unread`: bytes of an answer that is sent to it now.
  void wait_for_client(ListedConnection& one, std::size_t unread = 0);
  void wait_for_worker(ListedConnection& one);

  /// False: there is none that has been in its state for so long.
  bool close_first(std::chrono::milliseconds at_least = {});
  /// Closes the first connection that has not taken its answer, except `but`. False: there is none.
  bool close_first_unread(const ListedConnection& but);
  /// Closes every connection for which `which` is true.
  void close_where(const std::function<bool(const ListedConnection&)>& which);

 private:
  using List = std::list<ListedConnection*>;
  void close(ListedConnection& one);
  void move(ListedConnection& one, List& to, std::size_t unread);
  void set_unread(ListedConnection& one, std::size_t unread);

  List for_client_;
  List for_worker_;
  std::size_t unread_ = 0;
};

}  // namespace relay::http
