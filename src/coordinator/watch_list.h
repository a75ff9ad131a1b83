#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace relay::coordinator {

/// A reader that is told when a sequence moves, and woken if it sleeps then.
class Watcher {
 public:
  virtual ~Watcher() = default;
  /// The sequence stands at `last_value`: it moves before the row is visible.
  virtual void moved(std::int64_t last_value) = 0;
  virtual bool asleep() const = 0;
  /// Whether it must be notified at once. A busy reader finds new rows by itself.
  virtual bool waits() = 0;
  virtual void wake() = 0;
  /// Whether it was woken a moment ago and does not work yet.
  virtual bool coming_up() const = 0;
};

/// Decides which watchers are told and woken when sequences move. No watcher sleeps through a
/// value: one that was awake when the value came is woken once when it has fallen asleep. A
/// thousand sleepers of one sequence do not come up together, and watchers of other sequences do
/// not wait for them. Pure: no I/O, clock or thread.
class WatchList {
 public:
  static constexpr std::size_t kComingUp = 16;

  void add(const std::string& sequence, std::shared_ptr<Watcher> watcher);
  void remove(const Watcher& watcher);
  bool empty() const { return sequences_.empty(); }

  /// The names whose sequence is not known (any more): the caller calls `resolve` for each.
  std::vector<std::string> unresolved() const;
  /// `oid` 0: there is no sequence of this name now. If it was dropped or replaced, its watchers
  /// are woken, so that their sources report it.
  void resolve(const std::string& sequence, std::int64_t oid);
  /// Another session begins, maybe on another server: all names have to be resolved again.
  void unresolve_all();
  /// The sequence cannot be read now: it is left out until its name is resolved again.
  void set_aside(std::int64_t oid);

  /// The sequences to look at, and the value that is known of each, as PostgreSQL arrays.
  struct Question {
    std::string oids;
    std::string known;
  };
  const Question& question();
  bool nothing_to_ask() const { return by_oid_.empty(); }
  /// Whether a watcher must be notified at once; if none must, the sequences need not be read.
  bool has_waiting() const;

  /// The sequence stands at a value other than the known one.
  void saw(std::int64_t oid, std::int64_t value);
  /// The sequence was dropped: as if its name had been resolved to nothing.
  void gone(std::int64_t oid);
  /// Wakes the watchers that sleep and have not been woken for the newest value. To be called after
  /// each look, even if no sequence moved: watchers may have fallen asleep since. At most kComingUp
  /// come up at once; later calls wake the others.
  void wake_sleepers();

 private:
  struct Watch {
    std::shared_ptr<Watcher> watcher;
    bool due = false;  ///< to be woken when it sleeps
  };
  struct Sequence {
    std::int64_t oid = 0;  ///< the result of the last `resolve`
    bool asked = false;    ///< the next query asks for it
    std::int64_t value = 0;
    std::vector<Watch> watches;
  };
  void make_due(Sequence& sequence);
  bool wake_one(Sequence& sequence);
  void resolve(Sequence& sequence, std::int64_t oid);

  std::map<std::string, Sequence> sequences_;
  std::map<std::int64_t, Sequence*> by_oid_;
  std::set<Sequence*> due_;  ///< those with a watch that is due
  std::vector<std::shared_ptr<Watcher>> coming_up_;
  Question question_;
  bool question_made_ = false;
};

/// How long to wait between two looks when nothing has moved for `quiet`.
std::chrono::milliseconds pause_between_looks(std::chrono::nanoseconds quiet);

}  // namespace relay::coordinator
