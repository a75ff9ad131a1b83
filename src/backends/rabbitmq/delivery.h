#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "backends/rabbitmq/confirms.h"
#include "backends/rabbitmq/connection.h"
#include "backends/rabbitmq/options.h"
#include "connector/in_flight_window.h"
#include "connector/key_gate.h"
#include "core/deadline.h"
#include "core/message.h"

namespace relay::rabbitmq {

/// How some messages are to be sent.
struct SendingRules {
  const SinkOptions& options;
  bool one_of_a_key = false;
  /// So many messages, from the first, are under way alone: one of them may close the channel.
  std::size_t alone = 0;
  const Lease& lease;
};

/// Publishes some messages over one connection and waits for what becomes of them. Used once.
class Delivery {
 public:
  /// `confirms` belongs to the connection's channel, and has nothing in flight.
  Delivery(Connection& connection, Confirms& confirms, const SendingRules& rules,
           std::span<const Message> messages, Deadline deadline, int stop_fd);

  /// Afterwards `outcomes()` has what is known. What is not, `failure()` is to blame for.
  void run();

  std::vector<std::optional<Outcome>>& outcomes() { return outcomes_; }
  /// Null where every outcome is known.
  const SharedError& failure() const { return failure_; }
  /// The broker closed the channel over a message: one of these, which were under way.
  std::span<const std::size_t> suspects() const { return suspects_; }
  /// The broker refused or returned a message.
  bool refused() const { return refused_; }

 private:
  bool over();
  void give_up(Error error);
  void give_up_late(InFlightWindow::Verdict verdict);
  Error blocked() const;
  void drain();
  void take(const Confirm& confirm);
  void take(const Returned& returned);
  void take(const ChannelClosed& closed);
  void fill();
  bool has_room() const;
  bool may_write();
  void settle(std::size_t message, Outcome outcome);

  Connection& connection_;
  Confirms& confirms_;
  const SendingRules rules_;
  std::span<const Message> messages_;
  KeyGate gate_;
  Deadline deadline_;
  InFlightWindow window_;
  int stop_fd_;

  std::vector<std::optional<Outcome>> outcomes_;
  std::vector<SharedError> returned_;  // by message; empty until one is returned
  std::vector<std::size_t> suspects_;
  SharedError failure_;  // nothing more is sent
  bool gone_ = false;    // and no confirm will come
  bool refused_ = false;
  bool exhausted_ = false;  // every message was published, or settled
  bool stopped_ = false;
  std::size_t sent_ = 0;
  std::size_t writable_ = 0;  // bytes that surely go without waiting
};

}  // namespace relay::rabbitmq
