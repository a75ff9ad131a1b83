#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "connector/in_flight_window.h"
#include "core/deadline.h"
#include "core/message.h"
#include "core/mutex.h"

namespace relay::nats {

/// What is under way on one connection, and what became of it. The sending thread writes down what
/// it sends and waits; the library's threads only record what they are told and signal. What is
/// told late, of a delivery that has ended, is ignored. Any thread.
class Outcomes {
 public:
  /// Names a message under way: an address that the library keeps until it has told.
  using Handle = const void*;

  /// `peer`: the server's address, for messages.
  explicit Outcomes(std::string peer) : peer_(std::move(peer)) {}
  const std::string& peer() const { return peer_; }

  // The sending thread ----------------------------------------------------------------------

  /// Begins a delivery of that many messages. With `list_finished`, `take_finished` says which
  /// ended.
  void begin(std::size_t messages, bool list_finished);
  /// Ends it: the outcome of each message that has one.
  std::vector<std::optional<Outcome>> end();

  struct Sending {
    Handle handle;
    std::size_t message;
    std::size_t bytes;
  };
  /// Before messages are handed to the library.
  void sending(std::span<const Sending> messages);
  /// The library did not take these, the last ones, after all.
  void not_sent(std::span<const Sending> messages);
  void settle(std::size_t message, Outcome outcome);

  struct State {
    InFlightWindow::Load load;  ///< what is in flight, and since when the oldest of it
    SharedError failure;  ///< sending more is no use: the connection or an acknowledgement says so
    bool broken = false;  ///< it was the connection
  };
  State state();
  /// Waits until at most `wanted` messages are in flight, a failure, `until`, or a stop.
  State wait(std::size_t wanted, SteadyClock::time_point until, std::stop_token stop);
  /// Messages that came to a good end since the last call.
  std::vector<std::size_t> take_finished();
  /// The stream that answered first on this connection; empty: none yet.
  std::string stream();

  // The library's threads -------------------------------------------------------------------

  void told(Handle handle, Outcome outcome, std::string_view stream);
  /// The connection is of no use any more.
  void broke(SharedError error);
  /// The server said that it refuses something, without saying which message.
  void refused(SharedError error);

 private:
  struct Entry {
    std::size_t message;
    std::size_t bytes;
  };
  void close_entry(std::size_t message, Outcome outcome) RELAY_REQUIRES(mutex_);
  void note(SharedError error) RELAY_REQUIRES(mutex_);
  State state_locked() RELAY_REQUIRES(mutex_);

  const std::string peer_;
  struct Sent {
    std::size_t message;
    SteadyClock::time_point at;
  };
  Mutex mutex_;
  Condition changed_;
  std::unordered_map<Handle, Entry> in_flight_ RELAY_GUARDED_BY(mutex_);
  std::size_t bytes_ RELAY_GUARDED_BY(mutex_) = 0;
  /// Tell the waiting thread when no more than these are in flight.
  std::size_t wake_at_ RELAY_GUARDED_BY(mutex_) = 0;
  std::vector<std::optional<Outcome>> outcomes_ RELAY_GUARDED_BY(mutex_);
  std::vector<std::size_t> finished_ RELAY_GUARDED_BY(mutex_);
  bool list_finished_ RELAY_GUARDED_BY(mutex_) = false;
  std::vector<Sent> sent_ RELAY_GUARDED_BY(mutex_);  // in order of sending
  std::size_t oldest_ RELAY_GUARDED_BY(mutex_) = 0;  // of sent_: those before have an outcome
  SharedError failure_ RELAY_GUARDED_BY(mutex_);
  bool broken_ RELAY_GUARDED_BY(mutex_) = false;
  std::string stream_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::nats
