#include "cli/table_layout.h"

#include <algorithm>
#include <array>

namespace relay::cli {

namespace {

constexpr std::size_t kGap = 2;
/// What a column shrinks to before another one is left out.
constexpr std::size_t kReadable = 10;

/// From the least important; what is not here is more important than these.
constexpr std::array<std::string_view, 16> kLeftOutFirst{
    "version", "heartbeat_age_s", "message_id", "outbox_problem",  "since",     "group",
    "up",      "retry_requested", "owner",      "first_failed_at", "direction", "subject",
    "remedy",  "attempts",        "position",   "dead_letters"};
/// The most important ones.
constexpr std::array<std::string_view, 5> kLeftOutLast{"name", "pipeline", "id", "state",
                                                       "instance"};

std::size_t width_at(std::span<const ColumnNeed> columns, const std::vector<bool>& shown,
                     std::size_t limit) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (shown[i]) sum += std::min(columns[i].width, limit) + kGap;
  }
  return sum - std::min(sum, kGap);
}

void leave_one_out(std::span<const ColumnNeed> columns, std::vector<bool>& shown) {
  std::size_t least = columns.size();
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (!shown[i]) continue;
    // Of equal ones the last.
    if (least == columns.size() || columns[i].importance <= columns[least].importance) least = i;
  }
  shown[least] = false;
}

}  // namespace

std::vector<std::size_t> lay_out(std::span<const ColumnNeed> columns, std::size_t total) {
  std::vector<bool> shown(columns.size(), true);
  std::size_t left = columns.size();
  while (left > 1 && width_at(columns, shown, kReadable) > total) {
    leave_one_out(columns, shown);
    --left;
  }
  // The widest limit that fits: the columns below it keep their width.
  std::size_t limit = 1;
  for (std::size_t step = total; step > 0; step /= 2) {
    while (limit + step <= total && width_at(columns, shown, limit + step) <= total) limit += step;
  }
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    widths.push_back(shown[i] ? std::max<std::size_t>(std::min(columns[i].width, limit), 1) : 0);
  }
  std::size_t spare = total - std::min(total, width_at(columns, shown, limit));
  for (std::size_t i = 0; i < columns.size() && spare > 0; ++i) {
    if (widths[i] == 0 || widths[i] >= columns[i].width) continue;
    ++widths[i];
    --spare;
  }
  return widths;
}

int importance_of(std::string_view column) {
  const auto first = std::ranges::find(kLeftOutFirst, column);
  if (first != kLeftOutFirst.end()) return static_cast<int>(first - kLeftOutFirst.begin());
  const auto last = std::ranges::find(kLeftOutLast, column);
  return last == kLeftOutLast.end() ? static_cast<int>(kLeftOutFirst.size())
                                    : static_cast<int>(kLeftOutFirst.size()) + 1;
}

}  // namespace relay::cli
