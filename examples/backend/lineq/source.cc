#include "lineq/source.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/inbound_event.h"
#include "connector/source_id.h"
#include "core/stop_event.h"

namespace relay::lineq {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kSlice{20};  // how late an acknowledgement may be sent
constexpr milliseconds kFlushTime{1000};

/// A message, as views into its line.
struct Received {
  std::int64_t number = 0;
  std::string_view id;
  std::string_view key;
  std::string_view type;
  std::string_view body;
  std::vector<std::pair<std::string_view, std::string_view>> headers;

  std::optional<std::string> header(std::string_view name) const {
    const auto found =
        std::ranges::find(headers, name, &std::pair<std::string_view, std::string_view>::first);
    return found == headers.end() ? std::nullopt : std::optional(as_text(found->second));
  }
};

/// MSG number id key type body, then name and value of each header. Null: the line is not that.
std::optional<Received> received(const std::vector<std::string>& line) {
  constexpr std::size_t kHeaders = 6;
  if (line.size() < kHeaders || line[0] != "MSG") return std::nullopt;
  Received message{0, line[2], line[3], line[4], line[5], {}};
  std::from_chars(line[1].data(), line[1].data() + line[1].size(), message.number);
  if (message.number <= 0) return std::nullopt;
  for (std::size_t i = kHeaders; i + 1 < line.size(); i += 2) {
    message.headers.emplace_back(line[i], line[i + 1]);
  }
  return message;
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
    for (std::int64_t& at_server : unsettled_) at_server = 0;
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
  const auto message = received(line);
  if (!message) return fail(connection_->unexpected(line));
  const std::string key = as_text(message->key);
  const MappedMessage mapped{
      .subject = options_.queue, .key = key, .payload = message->body, .header = [&](auto name) {
        return message->header(name);
      }};
  InboundEvent event(mapping_, mapped, batch.arena);
  event.set_id({}, [&] {
    if (!message->id.empty()) return as_text(message->id);
    return fmt::format("{}{}:{}:{}", rules_.id_scope, id_part(options_.queue), incarnation_,
                       message->number);
  });
  event.set_type({}, [&] { return as_text(message->type); });
  event.set_payload(message->body, as_text(content_type_in(message->headers)));
  event.limit_payload(rules_.max_record_bytes, [&] {
    return fmt::format("message {} of queue '{}'", message->number, options_.queue);
  });
  for (const auto& [name, value] : message->headers) event.add_header(name, value);
  Record record = std::move(event).record();
  {
    const MutexLock lock(mutex_);
    record.id = unsettled_.add(message->number);
  }
  batch.add(std::move(record), shape_);
  return {};
}

Result<void> LineqSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(mutex_);
  while (const auto at_server = unsettled_.take(settled.id)) {
    settled_ = std::max(settled_, *at_server);
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
  const MutexLock lock(mutex_);
  unsettled_.forget();
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
