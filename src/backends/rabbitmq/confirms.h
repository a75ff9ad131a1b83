#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace relay::rabbitmq {

/// Which message a publisher confirm is about. Brokers number the publishes of a channel from 1 and
/// confirm by number, one or all up to one. Pure; one thread.
class Confirms {
 public:
  /// The next publish of the channel carries this message.
  void published(std::size_t message);

  /// Takes the messages out that a confirm of `tag` is about: that one, or with `multiple` every
  /// one up to it (tag 0: every one). What was confirmed before, or never published, is none.
  std::vector<std::size_t> confirmed(std::uint64_t tag, bool multiple);

  std::size_t in_flight() const { return in_flight_; }
  /// Messages that no confirm came for, in the order of their publishing.
  std::vector<std::size_t> open() const;

 private:
  static constexpr std::size_t kDone = static_cast<std::size_t>(-1);

  void forget_done();

  std::uint64_t first_tag_ = 1;  // tag of messages_.front()
  std::deque<std::size_t> messages_;
  std::size_t in_flight_ = 0;
};

}  // namespace relay::rabbitmq
