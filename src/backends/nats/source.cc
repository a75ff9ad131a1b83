#include "backends/nats/source.h"

#include <fmt/core.h>
#include <nats/nats.h>

#include <algorithm>

#include "config/tls.h"
#include "core/log.h"

namespace relay::nats {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kSlice{100};  // how late a stop may be noticed
constexpr milliseconds kFlushTime{1000};
constexpr milliseconds kLeastPause{100};

}  // namespace

NatsSource::NatsSource(SourceOptions options, EventRules rules, FieldMapping mapping)
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
  if (puller_->max_deliver() > 0) {
    log::warn(
        "max_deliver", options_.connection.pipeline,
        "consumer '{}' of stream '{}' delivers a message {} times at most, and a stop of the "
        "relay counts: one that was not settled by then never comes again. Set max_deliver of "
        "the consumer to -1",
        options_.consumer, options_.stream, puller_->max_deliver());
  }
  keeper_ = std::jthread([this](std::stop_token ending) { keep_in_work(ending); });
  return {};
}

/// The first server of the list that serves; what is unsettled stays so.
Result<void> NatsSource::connect(std::stop_token stop) {
  const auto open = [&](const Endpoint& endpoint) -> Result<std::unique_ptr<Puller>> {
    if (stop.stop_requested()) {
      return fail(ErrorClass::cancelled, "stopped", "stopped while connecting to NATS");
    }
    return Puller::open(options_, endpoint);
  };
  auto puller = endpoints_.open_first(options_.connection.endpoints, open);
  if (!puller) return fail(puller.error());
  last_delivery_ = 0;
  const MutexLock lock(mutex_);
  puller_ = std::move(*puller);
  if (std::exchange(stream_created_ns_, puller_->stream_created_ns()) !=
      puller_->stream_created_ns()) {
    // An answer for a message of the old stream would be taken for one of the new stream.
    for (std::string& reply : unsettled_) reply.clear();
  }
  return {};
}

Result<RecordBatch> NatsSource::read(const ReadLimits& limits, Deadline deadline,
                                     std::stop_token stop) {
  if (!puller_ || puller_->closed()) {
    if (auto connected = connect(stop); !connected) return fail(connected.error());
  }
  RecordBatch batch;
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    const milliseconds wait = batch.empty() ? std::min(kSlice, deadline.left()) : milliseconds(0);
    auto taken = next(wait, limits.bytes);
    if (!taken) {
      if (batch.empty()) return fail(taken.error());
      break;
    }
    if (*taken) {
      add(batch, **taken);
    } else if (!batch.empty() || deadline.passed() || stop.stop_requested()) {
      break;
    }
  }
  return batch;
}

/// The next message that is there, or comes within that time. An error: the connection is given up.
Result<std::optional<NatsSource::Taken>> NatsSource::next(milliseconds time,
                                                          std::size_t max_bytes) {
  if (!ahead_.empty()) {
    std::optional<Taken> taken = std::move(ahead_.front());
    ahead_.pop_front();
    return taken;
  }
  auto message = puller_->next(time, max_bytes);
  if (message && !*message) return std::nullopt;
  auto taken = message ? take_in(std::move(*message)) : fail(message.error());
  if (!taken) {
    const MutexLock lock(mutex_);
    puller_.reset();
  }
  return taken;
}

/// From now on the server hears that it is in work. Nothing: it is no message of the consumer, but
/// what some other client wrote to our inbox. An error: it is not known of which stream it is.
Result<std::optional<NatsSource::Taken>> NatsSource::take_in(Puller::Received message) {
  const char* const reply = natsMsg_GetReply(message.get());
  const auto place = parse_ack_subject(reply == nullptr ? "" : reply);
  if (!place) return std::nullopt;
  if (place->consumer_sequence <= last_delivery_) {
    puller_->answer(reply, "-NAK");
    return fail(puller_->remade());
  }
  last_delivery_ = place->consumer_sequence;
  const MutexLock lock(mutex_);
  const auto number = unsettled_.add(reply);
  return Taken{std::move(message), *place, number, puller_->stream_created_ns()};
}

milliseconds NatsSource::tend(std::stop_token stop) {
  if ((puller_ && !puller_->closed()) || connect(stop)) {
    while (true) {
      auto message = puller_->take(milliseconds(0));
      if (message && !*message) break;
      auto taken = message ? take_in(std::move(*message)) : fail(message.error());
      if (!taken) {
        const MutexLock lock(mutex_);
        puller_.reset();
        break;
      }
      if (*taken) ahead_.push_back(std::move(**taken));
    }
  }
  const auto wait = puller_ ? puller_->ack_wait() : std::chrono::nanoseconds(options_.ack_wait);
  return std::chrono::duration_cast<milliseconds>(wait / 4);
}

std::optional<std::int64_t> NatsSource::lag() {
  if (!puller_ || puller_->closed()) return std::nullopt;
  return puller_->held();
}

void NatsSource::add(RecordBatch& batch, const Taken& taken) {
  Record record = to_record(taken.message.get(), taken.place, taken.stream_created_ns, rules_,
                            mapping_, batch.arena);
  record.id = taken.number;
  batch.add(std::move(record), shape_);
}

void NatsSource::answer(const std::string& reply, const char* what) {
  if (puller_ && !reply.empty()) puller_->answer(reply, what);
}

Result<void> NatsSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(mutex_);
  while (const auto reply = unsettled_.take(settled.id)) answer(*reply, "+ACK");
  return {};
}

/// Long before the server would deliver them again, it hears that messages are in work.
void NatsSource::keep_in_work(std::stop_token stop) {
  const MutexLock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto wait = puller_ ? puller_->ack_wait() : std::chrono::nanoseconds(options_.ack_wait);
    closing_.wait_for(mutex_, stop, std::max<std::chrono::nanoseconds>(wait / 3, kLeastPause),
                      [] { return false; });
    if (!puller_ || stop.stop_requested()) continue;
    for (const std::string& reply : unsettled_) answer(reply, "+WPI");
  }
}

void NatsSource::close() {
  keeper_ = {};
  ahead_.clear();
  std::unique_ptr<Puller> puller;
  {
    const MutexLock lock(mutex_);
    for (const std::string& reply : unsettled_) answer(reply, "-NAK");
    puller = std::move(puller_);
    unsettled_.forget();
  }
  if (!puller) return;
  puller->give_back(kFlushTime);
  puller->flush(kFlushTime);
}

}  // namespace relay::nats
