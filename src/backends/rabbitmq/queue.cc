#include "backends/rabbitmq/queue.h"

#include <fmt/core.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/log.h"

namespace relay::rabbitmq {

namespace {

constexpr std::chrono::milliseconds kFirstMessage{1000};
constexpr int kNoStop = -1;  // poll ignores it
constexpr std::string_view kLimitRemedy =
    "beyond it RabbitMQ drops the message, or sends it to the queue's dead-letter exchange if it "
    "has one. Make the queue with x-delivery-limit = -1 (RabbitMQ 4) or without a limit (before), "
    "or give it a dead-letter exchange";

Error not_found(const SourceOptions& options, std::string_view address) {
  return misconfigured("not_found",
                       fmt::format("RabbitMQ at {} has no queue '{}'", address, options.queue),
                       options.declare ? "make the stream again, or set queue_type to stream"
                                       : "make it, correct queue, or set declare");
}

/// As the queue is to be made: a quorum queue has no limit of deliveries unless one is asked for.
Arguments arguments_of(const SourceOptions& options, const ServerVersion& version) {
  Arguments arguments = options.arguments;
  arguments["x-queue-type"] = options.queue_type;
  const std::int64_t limit = options.delivery_limit.value_or(-1);
  if (options.queue_type == "quorum" && (limit >= 0 || version.limits_deliveries())) {
    arguments["x-delivery-limit"] = limit;
  }
  if (!options.dead_letter_exchange.empty()) {
    arguments["x-dead-letter-exchange"] = options.dead_letter_exchange;
  }
  if (!options.dead_letter_routing_key.empty()) {
    arguments["x-dead-letter-routing-key"] = options.dead_letter_routing_key;
  }
  return arguments;
}

Result<FoundQueue> make_queue(const SourceOptions& options, EndpointWalk& walk,
                              std::stop_token stop) {
  auto connection = open_any(options.connection, walk, std::move(stop));
  if (!connection) return fail(connection.error());
  auto declared =
      (*connection)->declare_queue(options.queue, arguments_of(options, (*connection)->version()));
  if (!declared) return fail(declared.error());
  const QueueType type = options.queue_type == "stream"   ? QueueType::stream
                         : options.queue_type == "quorum" ? QueueType::quorum
                                                          : QueueType::classic;
  return FoundQueue{type, 0, true, {}};
}

Result<QueueType> find_type(Connection& connection, const std::string& queue) {
  // An earlier broker would hand out a message of a queue.
  if (!connection.version().checks_consumer_arguments()) return QueueType::unknown;
  const auto begun = connection.consume(queue, 1, StreamOffset{});
  if (begun) return QueueType::stream;
  const Error& error = begun.error();
  const bool refused = error.code == "precondition_failed" &&
                       error.message.find("'x-stream-offset'") != std::string::npos;
  if (!refused) return fail(error);
  return type_in_refusal(error.message);
}

/// Whether the queue is as it would have been declared, which is without a limit; null: it is not
/// known. Otherwise `said` is what the broker says.
std::optional<bool> has_no_limit(const SourceOptions& options, Connection& connection,
                                 std::string& said) {
  if (!options.declare || options.queue_type != "quorum") return std::nullopt;
  const auto same =
      connection.declare_queue(options.queue, arguments_of(options, connection.version()));
  if (same) return true;
  if (same.error().message.find("'x-delivery-limit'") == std::string::npos) return std::nullopt;
  said = same.error().message;
  return false;
}

}  // namespace

std::optional<std::int64_t> first_offset(Connection& connection) {
  const Deadline deadline = Deadline::after(kFirstMessage);
  while (true) {
    const auto notice = connection.next_notice();
    if (!notice) return std::nullopt;
    if (!*notice) {
      if (deadline.passed()) return std::nullopt;
      connection.wait(false, deadline, kNoStop);
    } else if (const auto* message = std::get_if<Delivered>(&**notice)) {
      return message->stream_offset < 0 ? std::nullopt : std::optional(message->stream_offset);
    }
  }
}

QueueType type_in_refusal(std::string_view message) {
  // The name of the queue, which may say anything, comes before it.
  constexpr std::string_view kBefore = " of queue type ";
  const auto found = message.rfind(kBefore);
  if (found == std::string_view::npos) return QueueType::unknown;
  const auto type = message.substr(found + kBefore.size());
  if (type.starts_with("rabbit_quorum_queue")) return QueueType::quorum;
  return type.starts_with("rabbit_classic_queue") ? QueueType::classic : QueueType::unknown;
}

Result<FoundQueue> find_queue(const SourceOptions& options, bool declare, EndpointWalk& walk,
                              std::stop_token stop) {
  auto connection = open_any(options.connection, walk, stop);
  if (!connection) return fail(connection.error());
  const auto count = (*connection)->count_ready(options.queue);
  if (!count) return fail(count.error());
  if (!*count) {
    if (!declare) return fail(not_found(options, (*connection)->address()));
    return make_queue(options, walk, std::move(stop));
  }
  const auto type = find_type(**connection, options.queue);
  if (!type) return fail(type.error());
  FoundQueue found{*type, **count, false, {}};
  if (found.type == QueueType::stream) found.first = first_offset(**connection);
  return found;
}

void warn_of_limit(const SourceOptions& options, EndpointWalk& walk, std::stop_token stop) {
  auto connection = open_any(options.connection, walk, std::move(stop));
  if (!connection) return;
  std::string said;
  const auto unlimited = has_no_limit(options, **connection, said);
  if (unlimited && *unlimited) return;
  const ServerVersion& version = (*connection)->version();
  if (!unlimited && !version.limits_deliveries()) return;
  log::warn(
      "delivery_limit", options.connection.pipeline,
      "the quorum queue '{}' {} a limit of deliveries ({}): each end of the relay counts as a "
      "delivery of the messages that were in work; {}",
      options.queue, unlimited ? "has" : "may have",
      unlimited ? said : "20, unless an argument or a policy says otherwise", kLimitRemedy);
}

}  // namespace relay::rabbitmq
