#include "backends/rabbitmq/stream.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <utility>

#include "backends/rabbitmq/digest_uuid.h"
#include "connector/source_id.h"

namespace relay::rabbitmq {

namespace {

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number);
  if (read.ec != std::errc() || read.ptr != end || number < 0) return std::nullopt;
  return number;
}

/// Seconds since 1970 of "2026-01-31T12:00:00Z".
std::optional<std::int64_t> time_of(const std::string& text) {
  int year = 0;
  unsigned month = 0;
  unsigned day = 0;
  unsigned hour = 0;
  unsigned minute = 0;
  unsigned second = 0;
  int length = 0;
  const int read = std::sscanf(text.c_str(), "%4d-%2u-%2uT%2u:%2u:%2uZ%n", &year, &month, &day,
                               &hour, &minute, &second, &length);
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  const bool whole = read == 6 && length == static_cast<int>(text.size());
  if (!whole || !date.ok() || year < 1970 || hour > 23 || minute > 59 || second > 59) {
    return std::nullopt;
  }
  const auto days = std::chrono::sys_days(date).time_since_epoch();
  return std::chrono::seconds(days).count() + hour * 3600 + minute * 60 + second;
}

/// Where a stream is begun of which nothing is settled.
StreamOffset beginning(const Position& settled, const StreamStart& start) {
  if (settled.id < 0) return {StreamOffset::Kind::time, -settled.id};
  return settled.row > 0 ? StreamOffset{} : start.at;
}

}  // namespace

Result<StreamStart> parse_stream_start(std::string_view text) {
  StreamStart start;
  if (text == "first") return start;
  if (text == "next") {
    start.next = true;
    return start;
  }
  if (const auto offset = whole_number(text)) {
    start.at = {StreamOffset::Kind::offset, *offset};
    return start;
  }
  if (const auto time = time_of(std::string(text))) {
    start.at = {StreamOffset::Kind::time, *time};
    return start;
  }
  return fail(misconfigured("bad_start", fmt::format("start: \"{}\" is no place in a stream", text),
                            "write first, next, an offset, or a time like 2026-01-31T12:00:00Z"));
}

std::string fingerprint(const Delivered& message) {
  return digest_uuid(fmt::format("{}:{}{}:{}{} {}", message.message_id.size(), message.message_id,
                                 message.routing_key.size(), message.routing_key, message.timestamp,
                                 message.body));
}

std::optional<std::int64_t> next_offset(const Position& settled, const StreamStart& start) {
  if (settled.id > 0) return settled.id;
  const StreamOffset from = beginning(settled, start);
  if (from.kind == StreamOffset::Kind::time) return std::nullopt;
  return from.value;
}

StreamOffset StreamPlace::attach(const Position& settled, const StreamStart& start,
                                 const Extent& extent) {
  open_.clear();
  generation_ = settled.row;
  count_ = extent.count;
  expected_ = settled;
  const bool doubted = std::exchange(doubted_, false);
  const std::int64_t first = extent.first.value_or(0);
  if (settled.id > 0) {
    from_first_ = first >= settled.id || (doubted && count_ < settled.id);
    return from_first_ ? StreamOffset{} : StreamOffset{StreamOffset::Kind::offset, settled.id - 1};
  }
  expected_.id = 0;
  from_first_ = false;
  const StreamOffset from = beginning(settled, start);
  const bool deleted = from.kind == StreamOffset::Kind::offset && from.value < first;
  return deleted ? StreamOffset{} : from;
}

StreamPlace::Sight StreamPlace::see(std::int64_t offset, const std::string& mark) {
  if (expected_.id == 0) return Sight::wanted;
  const std::int64_t settled = expected_.id - 1;
  const bool same = expected_.mark.empty() || expected_.mark == mark;
  // A count that reaches to what was settled: the consumer was only slow.
  if (from_first_ && offset < settled && offset + count_ > settled) return Sight::look_again;
  if (offset < settled || (offset == settled && !same)) return Sight::made_again;
  missing_ = std::max<std::int64_t>(offset - expected_.id, 0);
  expected_.id = 0;
  if (offset == settled) return Sight::settled;
  return missing_ > 0 ? Sight::truncated : Sight::wanted;
}

void StreamPlace::add(std::int64_t record, std::int64_t offset, std::string mark) {
  open_.push_back({record, offset, std::move(mark)});
}

std::optional<Position> StreamPlace::settle(std::int64_t record) {
  std::optional<Position> position;
  while (!open_.empty() && open_.front().record <= record) {
    position = Position{open_.front().offset + 1, generation_, std::move(open_.front().mark)};
    open_.pop_front();
  }
  return position;
}

Position made_again_after(const Position& settled) {
  return {0, settled.row + 1, {}};
}

std::string stream_message_id(std::string_view id_scope, std::string_view queue,
                              std::int64_t offset, std::int64_t generation) {
  std::string id = fmt::format("{}{}:{}", id_scope, id_part(queue), offset);
  if (generation > 0) id += fmt::format(".{}", generation);
  return id;
}

}  // namespace relay::rabbitmq
