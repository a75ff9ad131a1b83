#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace relay::stream {

/// The events of a stream, read from the table in rounds: a round brings the events that one
/// snapshot sees and the one before it did not, in the order of `seq`. No event is in two rounds,
/// however long its transaction was open. Keeps which rounds, and how much of the first one, are
/// settled. Pure.
class Rounds {
 public:
  /// From where the stream goes on after a start.
  struct Place {
    std::string seen;       ///< a snapshot of which all is settled
    std::string next;       ///< the snapshot of the round that is under way; empty: none is
    std::int64_t seq = -1;  ///< of that round all events up to here are settled

    friend bool operator==(const Place&, const Place&) = default;
  };
  /// Events are numbered from `handed_out` + 1.
  explicit Rounds(Place place, std::int64_t handed_out = 0);

  // For the reader.
  /// A round is being read: `behind` and `next` say which events are in it.
  bool reading() const { return reading_; }
  void begin(std::string next);
  const std::string& behind() const { return behind_; }
  const std::string& next() const { return next_; }
  /// The last event of the round that was handed out; -1: none was.
  std::int64_t seq() const { return seq_; }
  /// The round's next event is handed out; returns its number, from 1.
  std::int64_t hand_out(std::int64_t seq);
  /// The round has no more events.
  void end();

  // For the sender.
  /// All up to the `n`th event are settled.
  void settle(std::int64_t n);

  std::int64_t handed_out() const { return handed_out_; }
  /// What is to be stored.
  const Place& settled() const { return settled_; }
  std::int64_t underway() const { return handed_out_ - settled_n_; }

 private:
  struct Round {
    std::string next;
    std::int64_t last_n = 0;  ///< of its events that were handed out
    bool ended = false;
  };
  struct Event {
    std::int64_t n;
    std::int64_t seq;
  };
  Place settled_;
  std::string behind_;
  std::string next_;
  std::int64_t seq_ = -1;
  bool reading_ = false;
  std::int64_t handed_out_ = 0;
  std::int64_t settled_n_ = 0;
  std::deque<Round> rounds_;  ///< that are not settled; the last one may be under way
  std::deque<Event> events_;  ///< that are not settled

  void advance();
};

}  // namespace relay::stream
