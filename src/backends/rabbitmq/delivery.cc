#include "backends/rabbitmq/delivery.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "backends/rabbitmq/errors.h"

namespace relay::rabbitmq {

namespace {

/// A socket that takes bytes takes about that many at least.
constexpr std::size_t kWritable = 16u << 10;
constexpr std::size_t kBytesBeside = 200;  // of a message, beside its body
constexpr int kPreconditionFailed = 406;
constexpr int kContentTooLarge = 311;

Error transient(std::string code, std::string message, std::string remedy) {
  return {ErrorClass::transient, std::move(code), std::move(message), std::move(remedy), {}};
}

}  // namespace

Delivery::Delivery(Connection& connection, Confirms& confirms, const SendingRules& rules,
                   std::span<const Message> messages, Deadline deadline, int stop_fd)
    : connection_(connection),
      confirms_(confirms),
      rules_(rules),
      messages_(messages),
      gate_(messages, rules.one_of_a_key),
      deadline_(deadline),
      window_({.messages = rules.options.max_in_flight,
               .silence = rules.options.connection.ack_timeout},
              deadline),
      stop_fd_(stop_fd),
      outcomes_(messages.size()) {}

void Delivery::run() {
  while (true) {
    drain();
    if (!failure_) fill();
    if (over()) return;
    const bool to_write = !failure_ && !exhausted_ && writable_ == 0 && has_room();
    const Deadline until = connection_.blocked().empty() ? window_.until() : deadline_;
    const auto woken = connection_.wait(to_write, until, stop_fd_);
    stopped_ = woken.stopped;
    if (woken.writable) writable_ = kWritable;
  }
}

bool Delivery::over() {
  if (gone_) return true;
  if (window_.empty() && (failure_ || exhausted_)) return true;
  if (stopped_) {
    give_up({ErrorClass::cancelled, "stopped", "stopped before the confirm", {}, {}});
  } else if (!connection_.blocked().empty()) {
    // A broker that has said so is not silent.
    if (window_.empty() || deadline_.passed()) give_up(blocked());
  } else {
    give_up_late(window_.verdict(SteadyClock::now()));
  }
  return gone_;
}

Error Delivery::blocked() const {
  return {window_.empty() ? ErrorClass::throttled : ErrorClass::transient,
          "blocked",
          fmt::format("RabbitMQ at {} takes no messages for now: {}", connection_.address(),
                      connection_.blocked()),
          "give the broker memory and disk, or let consumers catch up",
          {}};
}

void Delivery::give_up_late(InFlightWindow::Verdict verdict) {
  if (verdict == InFlightWindow::Verdict::silent) {
    give_up(
        transient("ack_timeout",
                  fmt::format("RabbitMQ at {} did not confirm within {} ms", connection_.address(),
                              rules_.options.connection.ack_timeout.count()),
                  "if this stays, look at the broker's load and disk"));
  } else if (verdict == InFlightWindow::Verdict::late) {
    give_up(transient("deadline", fmt::format("RabbitMQ at {} is too slow", connection_.address()),
                      "nothing is lost: the relay goes on"));
  }
}

/// A later delivery would not know what a confirm of this one is about: the connection goes with
/// what is in flight.
void Delivery::give_up(Error error) {
  gone_ = true;
  if (!window_.empty()) connection_.abandon();
  failure_ = share(std::move(error));
}

/// Takes what the broker has said.
void Delivery::drain() {
  while (!gone_) {
    auto notice = connection_.next_notice();
    if (!notice) {
      gone_ = true;
      failure_ = share(std::move(notice.error()));
      return;
    }
    if (!*notice) return;
    if (const auto* confirm = std::get_if<Confirm>(&**notice)) take(*confirm);
    if (const auto* returned = std::get_if<Returned>(&**notice)) take(*returned);
    if (const auto* closed = std::get_if<ChannelClosed>(&**notice)) take(*closed);
  }
}

void Delivery::take(const Confirm& confirm) {
  const auto now = SteadyClock::now();
  for (const std::size_t message : confirms_.confirmed(confirm.tag, confirm.multiple)) {
    window_.answered(messages_[message].body.size(), now);
    if (!confirm.accepted) {
      settle(message, Outcome::unknown(share(transient(
                          "refused",
                          fmt::format("RabbitMQ at {} refuses a message with the routing key '{}'",
                                      connection_.address(), messages_[message].subject),
                          "a queue may be full (overflow = reject-publish): make room"))));
    } else if (!returned_.empty() && returned_[message]) {
      settle(message, Outcome::unknown(returned_[message]));
    } else {
      settle(message, Outcome::delivered());
    }
  }
}

/// Which message it is, only its id says.
void Delivery::take(const Returned& returned) {
  returned_.resize(messages_.size());
  const auto error = share(unroutable(returned.exchange, returned.routing_key));
  if (!failure_) failure_ = error;
  for (const std::size_t message : confirms_.open()) {
    if (messages_[message].id == returned.message_id) returned_[message] = error;
  }
}

void Delivery::take(const ChannelClosed& closed) {
  gone_ = true;
  const bool over_message =
      closed.by_publish && (closed.code == kPreconditionFailed || closed.code == kContentTooLarge);
  if (over_message && !failure_) suspects_ = confirms_.open();
  auto error = closed.error;
  if (!suspects_.empty()) {
    error.error_class = ErrorClass::rejected;
    error.code = "refused_by_broker";
    error.remedy = "raise the broker's max_message_size, or send less";
  }
  if (!failure_ || failure_->error_class == ErrorClass::transient) failure_ = share(error);
}

void Delivery::settle(std::size_t message, Outcome outcome) {
  if (outcome.kind == Outcome::Kind::unknown) {
    refused_ = true;
    if (!failure_) failure_ = outcome.error;
  } else {
    gate_.finished(message);
  }
  outcomes_[message] = std::move(outcome);
}

bool Delivery::has_room() const {
  if (!connection_.blocked().empty()) return false;
  const bool alone = sent_ <= rules_.alone && rules_.alone > 0;
  return alone ? window_.empty() : window_.has_room();
}

bool Delivery::may_write() {
  if (writable_ == 0) {
    const auto now = connection_.wait(true, Deadline(SteadyClock::now()), stop_fd_);
    if (now.writable) writable_ = kWritable;
  }
  return writable_ > 0;
}

void Delivery::fill() {
  SteadyClock::time_point now;  // matters to an empty window only
  while (!exhausted_ && has_room() && may_write()) {
    if (!rules_.lease.holds()) {
      failure_ = share(lease_over());
      return;
    }
    const std::ptrdiff_t next = gate_.next();
    if (next < 0) {
      exhausted_ = !rules_.one_of_a_key || window_.empty();
      return;
    }
    const auto index = static_cast<std::size_t>(next);
    const Message& message = messages_[index];
    const SinkOptions& options = rules_.options;
    if (message.body.size() > options.max_message_bytes) {
      settle(index, Outcome::rejected(share(
                        {ErrorClass::rejected,
                         "too_large",
                         fmt::format("a body of {} bytes, and max_message_bytes is {}",
                                     message.body.size(), options.max_message_bytes),
                         "raise max_message_bytes and the broker's max_message_size, or lower "
                         "delta_max_rows",
                         {}})));
      continue;
    }
    auto published =
        connection_.publish(message, {options.exchange, options.mandatory, options.persistent});
    if (!published && published.error().error_class == ErrorClass::rejected) {
      settle(index, Outcome::rejected(share(std::move(published.error()))));
      continue;
    }
    if (!published) {
      failure_ = share(std::move(published.error()));
      drain();  // the broker may have said why
      gone_ = true;
      return;
    }
    if (window_.empty()) now = SteadyClock::now();
    window_.sent(message.body.size(), now);
    confirms_.published(index);
    ++sent_;
    writable_ -= std::min(writable_, message.body.size() + kBytesBeside);
  }
}

}  // namespace relay::rabbitmq
