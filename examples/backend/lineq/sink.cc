#include "lineq/sink.h"

#include <fmt/core.h>

#include <deque>

#include "core/arena.h"

namespace relay::lineq {

namespace {

constexpr std::size_t kMaxUnsent = 256 * 1024;  // bytes that wait for the kernel to take them

Outcome too_large(const Message& message, std::size_t limit) {
  return Outcome::rejected(share(
      {ErrorClass::rejected,
       "too_large",
       fmt::format("a body of {} bytes, and max_message_bytes is {}", message.body.size(), limit),
       "raise max_message_bytes of the sink",
       {}}));
}

}  // namespace

/// Sends some messages over one connection, and reads an answer to each.
class LineqSink::Delivery {
 public:
  Delivery(Connection& connection, const SinkOptions& options, std::span<const Message> messages,
           const Lease& lease)
      : connection_(connection),
        options_(options),
        messages_(messages),
        lease_(lease),
        outcomes_(messages.size()) {}

  /// Empty: each message was answered. Else the connection is of no use any more.
  SharedError run(Deadline deadline, std::stop_token stop) {
    const StopEvent stopped(stop);
    while (true) {
      send();
      if (unanswered_.empty()) break;
      const Deadline silence = Deadline::after(options_.connection.timeout);
      auto answer = connection_.next(deadline.earlier(silence), stopped);
      if (!answer) return share(answer.error());
      if (!*answer) return share(connection_.silent());
      if (auto failure = settle(**answer)) return failure;
    }
    return next_ < messages_.size() ? share(lease_over()) : nullptr;
  }

  /// What was not answered is unknown for this reason.
  std::vector<Outcome> take_outcomes(const SharedError& failure) {
    for (auto& outcome : outcomes_) {
      if (!outcome) outcome = Outcome::unknown(failure);
    }
    std::vector<Outcome> taken;
    taken.reserve(outcomes_.size());
    for (auto& outcome : outcomes_) taken.push_back(std::move(*outcome));
    return taken;
  }

 private:
  void send() {
    for (; next_ < messages_.size() && connection_.unsent() < kMaxUnsent && lease_.holds();
         ++next_) {
      const Message& message = messages_[next_];
      if (message.body.size() > options_.max_message_bytes) {
        outcomes_[next_] = too_large(message, options_.max_message_bytes);
        continue;
      }
      fields_.assign({"PUT", message.subject, message.id, message.key, message.op, message.body});
      for_each_header(message, [&](std::string_view name, std::string_view value) {
        fields_.push_back(name);
        fields_.push_back(arena_.copy(value));  // it is there for this call only
      });
      connection_.send(fields_);
      unanswered_.push_back(next_);
    }
  }

  SharedError settle(const std::vector<std::string>& answer) {
    const std::size_t message = unanswered_.front();
    if (answer[0] == "OK") {
      outcomes_[message] = Outcome::delivered();
    } else if (answer[0] == "REFUSED") {
      outcomes_[message] = Outcome::rejected(
          share({ErrorClass::rejected,
                 "refused",
                 fmt::format("lineq at {} refuses the message: {}", connection_.address(),
                             answer.size() > 1 ? answer[1] : "it does not say why"),
                 "change what the server refuses, then retry the dead letter",
                 {}}));
    } else {
      return share(connection_.unexpected(answer));
    }
    unanswered_.pop_front();
    return nullptr;
  }

  Connection& connection_;
  const SinkOptions& options_;
  const std::span<const Message> messages_;
  const Lease& lease_;
  std::vector<std::optional<Outcome>> outcomes_;
  std::size_t next_ = 0;                // the first message that was not sent
  std::deque<std::size_t> unanswered_;  // messages that were, in order
  std::vector<std::string_view> fields_;
  Arena arena_;
};

Result<void> LineqSink::open(std::stop_token stop) {
  close();
  auto connection = Connection::open(options_.connection, stop);
  if (!connection) return fail(connection.error());
  auto cutter = SocketCutter::make(lease(), (*connection)->socket());
  if (!cutter) return fail(cutter.error());
  connection_ = std::move(*connection);
  cutter_ = std::move(*cutter);
  return {};
}

std::vector<Outcome> LineqSink::deliver(std::span<const Message> messages, Deadline deadline,
                                        std::stop_token stop) {
  if (!connection_) {
    if (auto opened = open(stop); !opened) {
      return {messages.size(), Outcome::unknown(share(opened.error()))};
    }
  }
  Delivery delivery(*connection_, options_, messages, lease());
  const SharedError failure = delivery.run(deadline, stop);
  if (failure) close();  // answers to this delivery must not be taken for those to the next one
  return delivery.take_outcomes(failure);
}

void LineqSink::close() {
  cutter_.reset();
  connection_.reset();
}

Inspection LineqSink::inspect(const std::optional<std::string>&, std::stop_token stop) {
  return Inspection::of(open(stop));
}

}  // namespace relay::lineq
