#include "cli/live_rows.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <optional>
#include <span>

#include "core/arena.h"
#include "envelope/json_reader.h"

namespace relay::cli {

namespace {

using envelope::JsonKind;
using envelope::JsonReader;
using Row = LiveRows::Row;

constexpr std::chrono::milliseconds kNews{1200};
constexpr std::chrono::seconds kRateOver{5};
constexpr std::size_t kLatencies = 500;

/// A value as it is shown: texts without quotes, all else as it was sent.
std::string text_of(JsonReader& reader, std::string_view raw) {
  if (envelope::kind_of(raw) == JsonKind::null) return {};
  std::string text;
  const bool is_text = envelope::kind_of(raw) == JsonKind::text && reader.append_text(raw, text);
  return is_text ? text : std::string(raw);
}

Row row_of(JsonReader& reader, std::span<const envelope::Member> members) {
  Row row;
  for (const envelope::Member& member : members) {
    row.emplace_back(member.name, text_of(reader, member.value));
  }
  return row;
}

/// The rows of a list, or the one of an object; nothing for null.
void append_rows(JsonReader& reader, std::string_view raw, std::vector<Row>& rows) {
  envelope::Rows found;
  if (!reader.slice_array(raw, found)) reader.slice_object(raw, found);
  for (std::size_t i = 0; i < found.size(); ++i) rows.push_back(row_of(reader, found.members(i)));
}

/// "2026-04-27T10:15:03.412Z".
std::optional<Timestamp> time_of(const std::string& text) {
  std::tm parts{};
  double seconds = 0;
  if (std::sscanf(text.c_str(), "%d-%d-%dT%d:%d:%lfZ", &parts.tm_year, &parts.tm_mon,
                  &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &seconds) != 6) {
    return std::nullopt;
  }
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  const auto whole = std::chrono::system_clock::from_time_t(::timegm(&parts));
  return std::chrono::time_point_cast<Timestamp::duration>(
      whole + std::chrono::microseconds(static_cast<std::int64_t>(seconds * 1e6)));
}

std::size_t equal_columns(const Row& a, const Row& b) {
  return static_cast<std::size_t>(std::ranges::count_if(
      a, [&](const auto& column) { return std::ranges::find(b, column) != b.end(); }));
}

bool has(const Row& row, const Row& key) {
  return equal_columns(key, row) == key.size();
}

}  // namespace

/// What a message says.
struct LiveRows::Change {
  bool replaces_all = false;
  bool has_rows = false;  ///< a change of rows, and no event
  std::vector<Row> removed;
  std::vector<Row> added;
  Row key;
  Row event;
  std::string time;

  /// False: it is no object.
  bool read_object(JsonReader& reader, std::string_view raw) {
    envelope::Rows rows;
    if (!reader.slice_object(raw, rows)) return false;
    for (const auto& [name, text, value] : rows.members(0)) read_member(reader, name, value);
    return true;
  }

  void read_member(JsonReader& reader, std::string_view name, std::string_view value) {
    const bool is_object = value.starts_with('{');
    if ((name == "delta" || name == "data") && is_object) {
      has_rows = has_rows || name == "delta";
      read_object(reader, value);
    } else if (name == "inserted" || name == "new" || name == "after") {
      has_rows = true;
      append_rows(reader, value, added);
    } else if (name == "deleted" || name == "old" || name == "before") {
      has_rows = true;
      append_rows(reader, value, removed);
    } else if (name == "key" && is_object) {
      std::vector<Row> keys;
      append_rows(reader, value, keys);
      if (!keys.empty()) key = std::move(keys.front());
    } else if (name == "metadata" && is_object) {
      std::vector<Row> metadata;
      append_rows(reader, value, metadata);
      if (!metadata.empty()) read_metadata(metadata.front());
    } else {
      event.emplace_back(name, text_of(reader, value));
      if (name == "timestamp" || name == "time") time = event.back().second;
    }
  }

  void read_metadata(const Row& metadata) {
    bool first = true;
    for (const auto& [name, text] : metadata) {
      if (name == "full_refresh") replaces_all = text == "true";
      if (name == "part") first = text == "1";
    }
    replaces_all = replaces_all && first;
  }
};

bool LiveRows::read(std::string_view message, Change& change) {
  std::string text(message);
  text.append(Arena::kPadding, ' ');  // which the reader may look at
  JsonReader reader;
  return change.read_object(reader, std::string_view(text).substr(0, message.size()));
}

void LiveRows::take(std::string_view message, SteadyClock::time_point now, Timestamp wall) {
  ++messages_;
  arrivals_.push_back(now);
  Change change;
  if (!read(message, change)) change.event = {{"message", std::string(message)}};
  if (!change.has_rows) change.added.push_back(std::move(change.event));
  note_latency(change.time, wall);
  if (change.replaces_all) rows_.clear();
  std::vector<std::size_t> removed = remove(change, now);
  for (Row& row : change.added) add(std::move(row), removed, now);
  if (rows_.size() > most_) {
    rows_.erase(rows_.begin(), rows_.begin() + static_cast<std::ptrdiff_t>(rows_.size() - most_));
  }
}

/// Marks the rows that are gone, and returns where they are.
std::vector<std::size_t> LiveRows::remove(const Change& change, SteadyClock::time_point now) {
  std::vector<std::size_t> places;
  const auto mark = [&](const Row& row) {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (rows_[i].fate == Fate::gone || !has(rows_[i].row, row)) continue;
      rows_[i].fate = Fate::gone;
      rows_[i].since = now;
      places.push_back(i);
      return;
    }
  };
  for (const Row& row : change.removed) mark(change.key.empty() ? row : change.key);
  // An insert of a key that is there already: it was sent again.
  if (change.removed.empty() && !change.key.empty()) mark(change.key);
  return places;
}

/// A changed row is removed and added: it keeps its place.
void LiveRows::add(Row row, std::vector<std::size_t>& removed, SteadyClock::time_point now) {
  auto best = removed.end();
  std::size_t most_alike = 0;
  for (auto place = removed.begin(); place != removed.end(); ++place) {
    const std::size_t alike = equal_columns(rows_[*place].row, row);
    if (alike <= most_alike) continue;
    most_alike = alike;
    best = place;
  }
  if (best == removed.end()) {
    rows_.push_back({std::move(row), Fate::came, now});
    return;
  }
  rows_[*best] = {std::move(row), Fate::came, now};
  removed.erase(best);
}

void LiveRows::settle(SteadyClock::time_point now) {
  std::erase_if(rows_, [&](const Shown& shown) {
    return shown.fate == Fate::gone && now - shown.since > kNews;
  });
  for (Shown& shown : rows_) {
    if (shown.fate == Fate::came && now - shown.since > kNews) shown.fate = Fate::present;
  }
  while (!arrivals_.empty() && now - arrivals_.front() > kRateOver) arrivals_.pop_front();
}

std::vector<std::string> LiveRows::names() const {
  std::vector<std::string> names;
  for (const Shown& shown : rows_) {
    for (const auto& [name, text] : shown.row) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

std::vector<std::vector<std::string>> LiveRows::cells(const std::vector<std::string>& names) const {
  std::vector<std::vector<std::string>> cells;
  for (const Shown& shown : rows_) {
    std::vector<std::string>& line = cells.emplace_back();
    for (const std::string& name : names) {
      const auto column = std::ranges::find(shown.row, name, &Row::value_type::first);
      line.push_back(column == shown.row.end() ? std::string() : column->second);
    }
  }
  return cells;
}

double LiveRows::rate(SteadyClock::time_point now) const {
  const auto recent = std::ranges::count_if(
      arrivals_, [&](SteadyClock::time_point at) { return now - at <= kRateOver; });
  return static_cast<double>(recent) / std::chrono::duration<double>(kRateOver).count();
}

double LiveRows::median_latency_ms() const {
  if (latencies_.empty()) return -1;
  std::vector<double> sorted(latencies_.begin(), latencies_.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::ranges::nth_element(sorted, middle);
  return *middle;
}

void LiveRows::note_latency(const std::string& time, Timestamp wall) {
  const auto at = time_of(time);
  if (!at) return;
  const double latency = std::chrono::duration<double, std::milli>(wall - *at).count();
  latencies_.push_back(std::max(latency, 0.));
  if (latencies_.size() > kLatencies) latencies_.pop_front();
}

}  // namespace relay::cli
