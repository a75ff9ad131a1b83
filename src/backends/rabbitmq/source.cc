#include "backends/rabbitmq/source.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "backends/rabbitmq/digest_uuid.h"
#include "core/log.h"
#include "core/stop_event.h"
#include "core/uuid.h"

namespace relay::rabbitmq {

namespace {

constexpr std::chrono::milliseconds kPatience{5000};  // for a socket that takes no bytes
constexpr int kNoStop = -1;                           // poll ignores it
/// Of the first message of a stream, which was settled before. Brokers count messages every 5 s.
constexpr std::chrono::seconds kProof{10};
/// So long it holds that the broker had nothing more.
constexpr std::chrono::seconds kFresh{2};
/// A quorum queue that counts so many earlier deliveries of a message is worth a warning.
constexpr std::int64_t kManyDeliveries = 2;

Error queue_gone(std::string_view queue, std::string_view address) {
  return {ErrorClass::transient,
          "queue_gone",
          fmt::format("RabbitMQ at {} ended the consumer of the queue '{}'", address, queue),
          "the queue was deleted, or its leader is away",
          {}};
}

/// By this the position of one stream is told from that of another one of the same pipeline.
std::string identity(const SourceOptions& options) {
  return digest_uuid(
      fmt::format("rabbitmq {} {}", options.connection.endpoints.at(0).vhost, options.queue));
}

std::int64_t seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace

RabbitSource::RabbitSource(SourceOptions options, EventRules rules, FieldMapping mapping,
                           std::unique_ptr<state::LocalPosition> position)
    : options_(std::move(options)),
      rules_(std::move(rules)),
      mapping_(std::move(mapping)),
      position_(std::move(position)),
      depth_(options_.connection, options_.queue) {}

Result<void> RabbitSource::open(std::stop_token stop) {
  replace(nullptr);
  // A stream that was deleted is not replaced by a queue.
  const bool declare = options_.declare && (!is_stream() || options_.queue_type == "stream");
  auto queue = find_queue(options_, declare, endpoints_, stop);
  if (!queue) return fail(queue.error());
  if (seen_as_stream_) queue->type = QueueType::stream;
  if (queue->type == QueueType::quorum && !queue->declared && !warned_of_limit_) {
    warned_of_limit_ = true;
    warn_of_limit(options_, endpoints_, stop);
  }
  queue_ = *queue;
  auto connection = connect(stop);
  if (!connection) return fail(connection.error());
  if (is_stream()) {
    if (auto claimed = claim_position(stop); !claimed) return claimed;
  }
  replace(std::move(*connection));
  return {};
}

Result<std::unique_ptr<Connection>> RabbitSource::connect(std::stop_token stop) {
  auto connection = open_any(options_.connection, endpoints_, std::move(stop));
  if (!connection) return connection;
  for (const auto& [exchange, key] : options_.bindings) {
    auto bound = (*connection)->bind_queue(options_.queue, exchange, key);
    if (!bound) return fail(bound.error());
  }
  return connection;
}

Result<void> RabbitSource::claim_position(std::stop_token stop) {
  auto owned = position_->claim(identity(options_), state::Start{"earliest"}, stop);
  if (!owned) return fail(owned.error().in_context("taking the position in the stream"));
  const Position& known = owned->position;
  if (!options_.start.next || known.id != 0 || known.row != 0) return {};
  // What is published from now on is still that after a restart before the first message.
  return position_->rewind({-seconds_since_1970(), 0, {}}, std::move(stop));
}

void RabbitSource::replace(std::unique_ptr<Connection> connection) {
  const MutexLock lock(mutex_);
  connection_ = std::move(connection);
  broken_ = false;
  warned_of_count_ = false;
  window_ = 0;
  proved_ = false;
  tags_.forget();
  place_.forget();
}

Result<RecordBatch> RabbitSource::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  const StopEvent stopped(stop);
  while (true) {
    if (auto ready = ensure_consumer(stop); !ready) return fail(ready.error());
    auto batch = take(limits, stop);
    if (!batch || !batch->empty()) return batch;
    if (deadline.passed() || stop.stop_requested()) {
      nothing_at_ = SteadyClock::now();
      return batch;
    }
    if (!is_broken()) connection_->wait(false, deadline, stopped.fd());
  }
}

bool RabbitSource::is_broken() {
  const MutexLock lock(mutex_);
  return broken_;
}

Result<void> RabbitSource::ensure_consumer(std::stop_token stop) {
  bool open_again = false;
  {
    const MutexLock lock(mutex_);
    if (is_stream() && window_ > 0 && place_.waits_for_proof() && SteadyClock::now() > proof_due_) {
      place_.doubt();
      broken_ = true;
    }
    open_again = !connection_ || broken_;
  }
  if (open_again) {
    if (auto opened = open(std::move(stop)); !opened) return opened;
  }
  const MutexLock lock(mutex_);
  auto grown = grow_window();
  if (!grown) broken_ = true;
  return grown;
}

/// Begins to consume, and consumes more of a queue that counts deliveries once one was settled.
Result<void> RabbitSource::grow_window() {
  const bool counts = queue_.type == QueueType::quorum || queue_.type == QueueType::unknown;
  const std::uint16_t wanted = counts && !proved_ ? 1 : options_.prefetch;
  if (window_ == wanted) return {};
  window_ = wanted;
  if (!is_stream()) return connection_->consume(options_.queue, wanted);
  proof_due_ = SteadyClock::now() + kProof;
  return connection_->consume(
      options_.queue, wanted,
      place_.attach(position_->settled(), options_.start, {queue_.count, queue_.first}));
}

/// What the broker has handed out; never waits.
Result<RecordBatch> RabbitSource::take(const ReadLimits& limits, std::stop_token stop) {
  RecordBatch batch;
  const MutexLock lock(mutex_);
  while (!broken_ && batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    auto notice = connection_->next_notice();
    if (notice && !*notice) return batch;
    const auto taken = notice ? take_notice(batch, **notice, stop) : fail(notice.error());
    if (taken) continue;
    broken_ = true;
    if (batch.empty()) return fail(taken.error());
  }
  return batch;
}

/// An error: the connection is of no use any more.
Result<void> RabbitSource::take_notice(RecordBatch& batch, const Notice& notice,
                                       std::stop_token stop) {
  if (const auto* closed = std::get_if<ChannelClosed>(&notice)) return fail(closed->error);
  if (std::holds_alternative<ConsumerCancelled>(notice)) {
    return fail(queue_gone(options_.queue, connection_->address()));
  }
  const auto* const message = std::get_if<Delivered>(&notice);
  if (message == nullptr) return {};
  if (message->stream_offset >= 0) return take_of_stream(batch, *message, std::move(stop));
  warn_of_count(*message);
  add(batch, *message);
  return {};
}

Result<void> RabbitSource::take_of_stream(RecordBatch& batch, const Delivered& message,
                                          std::stop_token stop) {
  if (!is_stream()) {
    seen_as_stream_ = true;
    broken_ = true;  // it is opened again, where its position stands
    return {};
  }
  std::string mark = fingerprint(message);
  switch (place_.see(message.stream_offset, mark)) {
    case StreamPlace::Sight::settled:
      return connection_->acknowledge_up_to(message.tag);
    case StreamPlace::Sight::look_again:
      broken_ = true;
      return {};
    case StreamPlace::Sight::made_again:
      log::warn("stream_made_again", options_.connection.pipeline,
                "the stream '{}' is not the one that was read before: it was deleted and made "
                "again, or the broker's data was lost; it is read from its beginning",
                options_.queue);
      broken_ = true;
      return position_->rewind(made_again_after(position_->settled()), std::move(stop));
    case StreamPlace::Sight::truncated:
      log::warn("stream_truncated", options_.connection.pipeline,
                "the stream '{}' has deleted up to {} messages before they were read: its "
                "retention is too short for the time that reading stood still",
                options_.queue, place_.missing());
      break;
    case StreamPlace::Sight::wanted:
      break;
  }
  add(batch, message);
  place_.add(batch.records.back().id, message.stream_offset, std::move(mark));
  return {};
}

void RabbitSource::warn_of_count(const Delivered& message) {
  if (message.delivery_count < kManyDeliveries || warned_of_count_) return;
  warned_of_count_ = true;
  log::warn(
      "many_deliveries", options_.connection.pipeline,
      "a message of the quorum queue '{}' was handed out {} times before and never settled; "
      "beyond the queue's limit of deliveries (20 with RabbitMQ 4, unless set) RabbitMQ drops "
      "it, or sends it to the dead-letter exchange",
      options_.queue, message.delivery_count);
}

void RabbitSource::add(RecordBatch& batch, const Delivered& message) {
  if (!shape_) {
    shape_ =
        std::make_shared<const TableShape>(TableShape{.name = options_.queue, .key_columns = {}});
  }
  Record record = to_record(message, rules_, mapping_, batch.arena);
  auto& event = std::get<Event>(record.content);
  if (event.id.empty() && message.stream_offset >= 0) {
    event.id = batch.arena.copy(stream_message_id(rules_.id_scope, options_.queue,
                                                  message.stream_offset, place_.generation()));
  }
  if (event.id.empty()) {
    event.id = batch.arena.copy(new_uuid());
    if (!warned_of_ids_) {
      log::warn("no_message_id", options_.connection.pipeline,
                "messages of the queue '{}' have no message-id: each gets a new one, and one that "
                "RabbitMQ delivers twice arrives twice; id_from names another place",
                options_.queue);
      warned_of_ids_ = true;
    }
  }
  record.id = tags_.add(message.tag);
  batch.add(std::move(record), shape_);
}

/// A connection that is gone takes its unacknowledged messages along: these come again, so the
/// broker need not be told.
Result<void> RabbitSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  std::optional<Position> place;
  {
    const MutexLock lock(mutex_);
    place = place_.settle(settled.id);
    std::optional<std::uint64_t> tag;  // the broker takes it for all before it
    while (const auto last = tags_.take(settled.id)) tag = last;
    if (tag && connection_ && !broken_) {
      const bool takes_bytes =
          connection_->wait(true, Deadline::after(kPatience), kNoStop).writable;
      if (takes_bytes && connection_->acknowledge_up_to(*tag)) {
        proved_ = true;
      } else {
        connection_->abandon();
        broken_ = true;
      }
    }
    if (!position_->claimed()) return {};
  }
  // The same position again writes what is due.
  return position_->settle(place ? *place : position_->settled());
}

std::optional<std::int64_t> RabbitSource::lag() {
  {
    const MutexLock lock(mutex_);
    if (!connection_ || broken_) return std::nullopt;
    // A broker counts entries of its own among the messages of a stream.
    const bool all_read = SteadyClock::now() - nothing_at_ < kFresh && window_ > 0 &&
                          !place_.waits_for_proof() && tags_.size() == 0;
    if (is_stream() && all_read) return 0;
  }
  if (is_stream()) {
    const auto next = next_offset(position_->settled(), options_.start);
    return next ? depth_.of_stream_from(*next) : std::nullopt;
  }
  const auto ready = depth_.ready();
  if (!ready) return std::nullopt;
  const MutexLock lock(mutex_);
  // Where more is ready, the broker has handed out all that the window allows.
  const auto held = static_cast<std::int64_t>(tags_.size());
  return *ready + (*ready > 0 ? std::max<std::int64_t>(held, window_) : held);
}

void RabbitSource::close() {
  if (position_->claimed()) {
    const auto flushed = position_->flush();
    if (!flushed) {
      log::failure("position_not_written", options_.connection.pipeline, flushed.error());
    }
  }
  depth_.close();
  replace(nullptr);
}

}  // namespace relay::rabbitmq
