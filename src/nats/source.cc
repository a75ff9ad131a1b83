#include "nats/source.h"

#include <fmt/core.h>
#include <nats/nats.h>

#include <algorithm>

#include "config/tls.h"
#include "nats/ack_subject.h"
#include "pipeline/header_object.h"
#include "pipeline/source_id.h"
#include "pipeline/too_large.h"

namespace relay::nats {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kSlice{100};  // how late a stop may be noticed
constexpr milliseconds kFlushTime{1000};
constexpr milliseconds kLeastPause{100};

std::optional<std::string> header(natsMsg* message, std::string_view name) {
  const char* value = nullptr;
  if (natsMsgHeader_Get(message, std::string(name).c_str(), &value) != NATS_OK ||
      value == nullptr || *value == '\0') {
    return std::nullopt;
  }
  return as_text(value);
}

std::string headers_json(natsMsg* message, const std::optional<std::string>& trace) {
  HeaderObject headers;
  const char** names = nullptr;
  int count = 0;
  if (natsMsgHeader_Keys(message, &names, &count) != NATS_OK) count = 0;
  for (int i = 0; i < count; ++i) {
    const char* value = nullptr;
    if (natsMsgHeader_Get(message, names[i], &value) == NATS_OK && value != nullptr) {
      headers.add(names[i], value);
    }
  }
  if (trace) headers.add("trace_id", *trace);
  std::string json = headers.json();
  std::free(names);  // the library's array; what it points to is the message's
  return json;
}

}  // namespace

NatsSource::NatsSource(SourceOptions options, Rules rules, FieldMapping mapping)
    : options_(std::move(options)),
      rules_(std::move(rules)),
      mapping_(std::move(mapping)),
      shape_(std::make_shared<const TableShape>(TableShape{options_.stream, {}})) {}

NatsSource::~NatsSource() {
  close();
}

Result<void> NatsSource::open(std::stop_token stop) {
  close();
  if (!options_.connection.tls_verify) {
    config::warn_of_no_verification(options_.connection.pipeline, "NATS");
  }
  if (auto connected = connect(stop); !connected) return connected;
  keeper_ = std::jthread([this](std::stop_token ending) { keep_in_work(ending); });
  return {};
}

/// The first server of the list that serves; what is unsettled stays so.
Result<void> NatsSource::connect(std::stop_token stop) {
  const auto& endpoints = options_.connection.endpoints;
  std::optional<Error> first;
  for (std::size_t tried = 0; tried < endpoints.size(); ++tried) {
    if (stop.stop_requested()) {
      return fail(ErrorClass::cancelled, "stopped", "stopped while connecting to NATS");
    }
    auto puller = Puller::open(options_, endpoints[next_endpoint_ % endpoints.size()]);
    if (puller) {
      lag_ = (*puller)->pending();
      last_delivery_ = 0;
      const std::lock_guard lock(mutex_);
      puller_ = std::move(*puller);
      if (std::exchange(stream_created_ns_, puller_->stream_created_ns()) !=
          puller_->stream_created_ns()) {
        // An answer for a message of the old stream would be taken for one of the new stream.
        for (std::string& reply : unsettled_) reply.clear();
      }
      return {};
    }
    ++next_endpoint_;
    if (!first || puller.error().error_class == ErrorClass::transient) first = puller.error();
  }
  return fail(*first);
}

Result<RecordBatch> NatsSource::read(const ReadLimits& limits, Deadline deadline,
                                     std::stop_token stop) {
  if (!puller_ || puller_->closed()) {
    if (auto connected = connect(stop); !connected) return fail(connected.error());
  }
  RecordBatch batch;
  batch.shape = shape_;
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    const milliseconds wait = batch.empty() ? std::min(kSlice, deadline.left()) : milliseconds(0);
    auto message = puller_->next(wait, limits.bytes);
    if (message && *message && !add(batch, message->get())) message = fail(puller_->remade());
    if (!message) {
      {
        const std::lock_guard lock(mutex_);
        puller_.reset();
      }
      if (batch.empty()) return fail(message.error());
      break;
    }
    if (*message) continue;
    if (!batch.empty() || deadline.passed() || stop.stop_requested()) break;
  }
  return batch;
}

/// The id of a message that is known at its broker only: what its publisher called it, or its place
/// in the stream, as long as that stream is there.
std::string NatsSource::own_id(natsMsg* message, const AckSubject& place) const {
  std::string id =
      fmt::format("{}{}:{}:", rules_.id_scope, id_part(place.stream), puller_->stream_created_ns());
  if (const auto given = header(message, "Nats-Msg-Id")) return id + "id:" + *given;
  return id + std::to_string(place.sequence);
}

/// False: it is not known of which stream it is.
bool NatsSource::add(RecordBatch& batch, natsMsg* message) {
  const char* const reply = natsMsg_GetReply(message);
  const auto place = parse_ack_subject(reply == nullptr ? "" : reply);
  if (!place) return true;  // somebody else wrote to our inbox
  if (place->consumer_sequence <= last_delivery_) {
    puller_->answer(reply, "-NAK");
    return false;
  }
  last_delivery_ = place->consumer_sequence;
  const std::string_view subject = natsMsg_GetSubject(message);
  const std::string_view payload(natsMsg_GetData(message),
                                 static_cast<std::size_t>(natsMsg_GetDataLength(message)));
  const MappedMessage mapped{
      .subject = subject, .key = {}, .payload = payload, .header = [&](std::string_view name) {
        return header(message, name);
      }};
  Event event;
  auto id = mapping_.id(mapped);
  if (!id) id = header(message, "pgtrickle-id");
  if (!id) id = own_id(message, *place);
  event.id = batch.arena.copy(*id);
  event.type = batch.arena.copy(mapping_.event_type(mapped).value_or(std::string(subject)));
  event.key = batch.arena.copy(mapping_.aggregate_id(mapped).value_or(std::string()));
  event.payload = batch.arena.copy(payload);
  if (const auto type = header(message, "content-type")) {
    event.content_type = batch.arena.copy(*type);
  }
  Record record;
  record.created_at = Timestamp(std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::nanoseconds(place->time_ns)));
  record.headers = batch.arena.copy(headers_json(message, mapping_.trace_id(mapped)));
  record.content = event;
  if (payload.size() > static_cast<std::size_t>(rules_.max_record_bytes)) {
    record.refused = too_large(fmt::format("the message {} of stream '{}' on '{}'", place->sequence,
                                           place->stream, subject),
                               payload.size(), rules_.max_record_bytes);
  }
  lag_ = static_cast<std::int64_t>(place->pending);
  {
    const std::lock_guard lock(mutex_);
    unsettled_.emplace_back(reply);
    record.id = first_ + static_cast<std::int64_t>(unsettled_.size()) - 1;
  }
  batch.records.push_back(std::move(record));
  return true;
}

/// With the mutex held.
void NatsSource::answer(const std::string& reply, const char* what) {
  if (puller_ && !reply.empty()) puller_->answer(reply, what);
}

Result<void> NatsSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const std::lock_guard lock(mutex_);
  while (!unsettled_.empty() && first_ <= settled.id) {
    answer(unsettled_.front(), "+ACK");
    unsettled_.pop_front();
    ++first_;
  }
  return {};
}

/// Long before the server would deliver them again, it hears that messages are in work.
void NatsSource::keep_in_work(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto wait = puller_ ? puller_->ack_wait() : std::chrono::nanoseconds(options_.ack_wait);
    closing_.wait_for(lock, stop, std::max<std::chrono::nanoseconds>(wait / 3, kLeastPause),
                      [] { return false; });
    if (!puller_ || stop.stop_requested()) continue;
    for (const std::string& reply : unsettled_) answer(reply, "+WPI");
  }
}

void NatsSource::close() {
  keeper_ = {};
  std::unique_ptr<Puller> puller;
  {
    const std::lock_guard lock(mutex_);
    for (const std::string& reply : unsettled_) answer(reply, "-NAK");
    puller = std::move(puller_);
    first_ += static_cast<std::int64_t>(unsettled_.size());
    unsettled_.clear();
  }
  if (!puller) return;
  puller->give_back(kFlushTime);
  puller->flush(kFlushTime);
}

}  // namespace relay::nats
