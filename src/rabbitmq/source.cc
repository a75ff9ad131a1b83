#include "rabbitmq/source.h"

#include <fmt/core.h>

#include "core/log.h"
#include "core/stop_event.h"
#include "core/uuid.h"

namespace relay::rabbitmq {

namespace {

constexpr std::chrono::milliseconds kPatience{5000};  // for a socket that takes no bytes
constexpr int kNoStop = -1;                           // poll ignores it

Error queue_gone(std::string_view queue, std::string_view address) {
  return {ErrorClass::transient,
          "queue_gone",
          fmt::format("RabbitMQ at {} ended the consumer of the queue '{}'", address, queue),
          "the queue was deleted, or its leader is away",
          {}};
}

}  // namespace

Result<void> RabbitSource::open(std::stop_token stop) {
  close();
  auto connection = connect(std::move(stop));
  if (!connection) return fail(connection.error());
  replace(std::move(*connection));
  return {};
}

Result<std::unique_ptr<Connection>> RabbitSource::connect(std::stop_token stop) {
  auto connection = open_any(options_.connection, next_endpoint_, stop);
  if (!connection) return connection;
  // A queue that is there is taken as it is, of whatever type.
  const auto found = (*connection)->has_queue(options_.queue);
  if (!found) return fail(found.error());
  if (!*found) {
    if (!options_.declare) {
      return fail(
          ErrorClass::misconfigured, "not_found",
          fmt::format("RabbitMQ at {} has no queue '{}'", (*connection)->address(), options_.queue),
          "make it, correct queue, or set declare");
    }
    connection = open_any(options_.connection, next_endpoint_, stop);
    if (!connection) return connection;
    auto declared = (*connection)->declare_queue(options_.queue, options_.queue_type);
    if (!declared) return fail(declared.error());
  }
  if (auto prepared = prepare(**connection); !prepared) return fail(prepared.error());
  return connection;
}

Result<void> RabbitSource::prepare(Connection& connection) {
  for (const auto& [exchange, key] : options_.bindings) {
    if (auto bound = connection.bind_queue(options_.queue, exchange, key); !bound) return bound;
  }
  return connection.consume(options_.queue, options_.prefetch);
}

void RabbitSource::replace(std::unique_ptr<Connection> connection) {
  const std::lock_guard lock(mutex_);
  connection_ = std::move(connection);
  broken_ = false;
  tags_.forget();
}

Result<RecordBatch> RabbitSource::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  bool open_again = false;
  {
    const std::lock_guard lock(mutex_);
    open_again = !connection_ || broken_;
  }
  if (open_again) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  const StopEvent stopped(stop);
  while (true) {
    auto batch = take(limits);
    if (!batch || !batch->empty()) return batch;
    if (deadline.passed() || stop.stop_requested()) return batch;
    connection_->wait(false, deadline, stopped.fd());
  }
}

/// What the broker has handed out; never waits.
Result<RecordBatch> RabbitSource::take(const ReadLimits& limits) {
  RecordBatch batch;
  const std::lock_guard lock(mutex_);
  while (!broken_ && batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    auto notice = connection_->next_notice();
    std::optional<Error> error;
    if (!notice) {
      error = notice.error();
    } else if (!*notice) {
      return batch;
    } else if (const auto* message = std::get_if<Delivered>(&**notice)) {
      add(batch, *message);
    } else if (const auto* closed = std::get_if<ChannelClosed>(&**notice)) {
      error = closed->error;
    } else if (std::holds_alternative<ConsumerCancelled>(**notice)) {
      error = queue_gone(options_.queue, connection_->address());
    }
    if (!error) continue;
    broken_ = true;
    if (batch.empty()) return fail(std::move(*error));
  }
  return batch;
}

void RabbitSource::add(RecordBatch& batch, const Delivered& message) {
  if (!shape_) {
    shape_ =
        std::make_shared<const TableShape>(TableShape{.name = options_.queue, .key_columns = {}});
  }
  batch.shape = shape_;
  Record record = to_record(message, rules_, mapping_, batch.arena);
  auto& event = std::get<Event>(record.content);
  if (event.id.empty()) {
    event.id = batch.arena.copy(new_uuid());
    if (!warned_of_ids_) {
      log::warn("no_message_id", pipeline_,
                "messages of the queue '{}' have no message-id: each gets a new one, and one that "
                "RabbitMQ delivers twice arrives twice; id_from names another place",
                options_.queue);
      warned_of_ids_ = true;
    }
  }
  record.id = tags_.add(message.tag);
  batch.records.push_back(std::move(record));
}

/// A connection that is gone takes its unacknowledged messages along: these come again, so there is
/// nothing to be told to anybody.
Result<void> RabbitSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const std::lock_guard lock(mutex_);
  const auto tag = tags_.settle(settled.id);
  if (!tag || !connection_ || broken_) return {};
  const bool takes_bytes = connection_->wait(true, Deadline::after(kPatience), kNoStop).writable;
  if (takes_bytes && connection_->acknowledge_up_to(*tag)) return {};
  connection_->abandon();
  broken_ = true;
  return {};
}

void RabbitSource::close() {
  replace(nullptr);
}

}  // namespace relay::rabbitmq
