#include "lineq/source.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/source_id.h"
#include "connector/too_large.h"
#include "core/stop_event.h"

namespace relay::lineq {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kSlice{20};  // how late an acknowledgement may be sent
constexpr milliseconds kFlushTime{1000};

/// MSG number id key type body, then name and value of each header.
struct Received {
  enum Field { kNumber = 1, kId, kKey, kType, kBody, kHeaders };

  explicit Received(const std::vector<std::string>& fields) : line(fields) {}

  std::optional<std::string> header(std::string_view name) const {
    for (std::size_t i = kHeaders; i + 1 < line.size(); i += 2) {
      if (line[i] == name) return as_text(line[i + 1]);
    }
    return std::nullopt;
  }

  const std::vector<std::string>& line;
};

std::int64_t number_of(const std::vector<std::string>& line) {
  std::int64_t number = 0;
  if (line.size() < Received::kHeaders || line[0] != "MSG") return 0;
  const std::string& text = line[Received::kNumber];
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

LineqSource::LineqSource(SourceOptions options, Rules rules, FieldMapping mapping)
    : options_(std::move(options)),
      rules_(std::move(rules)),
      mapping_(std::move(mapping)),
      shape_(std::make_shared<const TableShape>(TableShape{options_.queue, {}})) {}

Result<void> LineqSource::open(std::stop_token stop) {
  close();
  return connect(stop);
}

/// What was read over an earlier connection stays to be settled.
Result<void> LineqSource::connect(std::stop_token stop) {
  auto connection = Connection::open(options_.connection, stop);
  if (!connection) return fail(connection.error());
  (*connection)->send({"READ", options_.queue});
  auto answer = (*connection)->next(Deadline::after(options_.connection.timeout), StopEvent(stop));
  if (!answer) return fail(answer.error());
  if (!*answer) return fail((*connection)->silent());
  const std::vector<std::string>& line = **answer;
  if (line[0] != "QUEUE" || line.size() < 2) return fail((*connection)->unexpected(line));
  connection_ = std::move(*connection);
  told_ = 0;
  if (std::exchange(incarnation_, line[1]) != line[1]) {
    // An acknowledgement of the old queue would be taken for one of the new queue.
    const MutexLock lock(mutex_);
    settled_ = 0;
    for (Unsettled& message : unsettled_) message.at_server = 0;
  }
  return {};
}

Result<RecordBatch> LineqSource::read(const ReadLimits& limits, Deadline deadline,
                                      std::stop_token stop) {
  if (!connection_) {
    if (auto connected = connect(stop); !connected) return fail(connected.error());
  }
  const StopEvent stopped(stop);
  RecordBatch batch;
  batch.shape = shape_;
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    send_acknowledgements();
    const Deadline slice = Deadline::after(batch.empty() ? kSlice : milliseconds(0));
    auto line = connection_->next(deadline.earlier(slice), stopped);
    auto added = !line ? fail(line.error()) : *line ? add(batch, **line) : Result<void>();
    if (!added) {
      connection_.reset();
      if (batch.empty()) return fail(added.error());
      break;  // the next read connects again
    }
    if (!*line && (!batch.empty() || deadline.passed() || stop.stop_requested())) break;
  }
  return batch;
}

Result<void> LineqSource::add(RecordBatch& batch, const std::vector<std::string>& line) {
  const std::int64_t at_server = number_of(line);
  if (at_server <= 0) return fail(connection_->unexpected(line));
  const Received message(line);
  const std::string& payload = line[Received::kBody];
  const MappedMessage mapped{.subject = options_.queue,
                             .key = line[Received::kKey],
                             .payload = payload,
                             .header = [&](std::string_view name) { return message.header(name); }};
  Event event;
  auto id = mapping_.id(mapped);
  if (!id && !line[Received::kId].empty()) id = as_text(line[Received::kId]);
  if (!id) {
    id = fmt::format("{}{}:{}:{}", rules_.id_scope, id_part(options_.queue), incarnation_,
                     at_server);
  }
  event.id = batch.arena.copy(*id);
  event.type =
      batch.arena.copy(mapping_.event_type(mapped).value_or(as_text(line[Received::kType])));
  event.key =
      batch.arena.copy(mapping_.aggregate_id(mapped).value_or(as_text(line[Received::kKey])));
  event.payload = batch.arena.copy(payload);
  event.content_type = {};  // unless a header says it
  HeaderObject headers;
  for (std::size_t i = Received::kHeaders; i + 1 < line.size(); i += 2) {
    headers.add(line[i], line[i + 1]);
    if (names_content_type(line[i])) event.content_type = batch.arena.copy(as_text(line[i + 1]));
  }
  const auto trace = mapping_.trace_id(mapped);
  if (trace) headers.add("trace_id", *trace);

  Record record;
  record.headers = batch.arena.copy(headers.json());
  record.content = event;
  if (payload.size() > static_cast<std::size_t>(rules_.max_record_bytes)) {
    record.refused = too_large(fmt::format("message {} of queue '{}'", at_server, options_.queue),
                               payload.size(), rules_.max_record_bytes);
  }
  {
    const MutexLock lock(mutex_);
    record.id = ++last_number_;
    unsettled_.push_back({record.id, at_server});
  }
  batch.records.push_back(std::move(record));
  return {};
}

Result<void> LineqSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(mutex_);
  while (!unsettled_.empty() && unsettled_.front().number <= settled.id) {
    settled_ = std::max(settled_, unsettled_.front().at_server);
    unsettled_.pop_front();
  }
  return {};
}

void LineqSource::send_acknowledgements() {
  std::int64_t settled = 0;
  {
    const MutexLock lock(mutex_);
    settled = settled_;
  }
  if (settled <= told_) return;
  connection_->send({"ACK", std::to_string(settled)});
  told_ = settled;
}

milliseconds LineqSource::tend(std::stop_token stop) {
  if (connection_) {
    send_acknowledgements();
    if (!connection_->flush(Deadline::after(kSlice), StopEvent(stop))) connection_.reset();
  }
  return kSlice;
}

void LineqSource::close() {
  if (connection_) {
    send_acknowledgements();
    // What cannot be sent is delivered again.
    (void)connection_->flush(Deadline::after(kFlushTime), StopEvent({}));
  }
  connection_.reset();
}

Inspection LineqSource::inspect(std::stop_token stop) {
  auto connection = Connection::open(options_.connection, stop);
  return Inspection::of(connection ? Result<void>() : fail(connection.error()));
}

std::vector<Claim> LineqSource::claims() const {
  return {{"the queue '" + options_.queue + "'",
           {options_.connection.server.address},
           "the server sends the messages to one of them",
           "give each pipeline a queue of its own"}};
}

}  // namespace relay::lineq
