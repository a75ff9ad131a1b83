#include "stream/snapshot.h"

#include <algorithm>
#include <charconv>

namespace relay::stream {

namespace {

/// Takes a number and the `end` behind it off the front of `text`.
std::optional<Xid> take(std::string_view& text, char end) {
  Xid value = 0;
  const auto [next, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(next - text.data()));
  if (text.empty()) return end == ',' ? std::optional(value) : std::nullopt;
  if (text.front() != end) return std::nullopt;
  text.remove_prefix(1);
  if (end == ',' && text.empty()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<Xid> parse_xid(std::string_view text) {
  Xid xid = 0;
  const auto [next, error] = std::from_chars(text.data(), text.data() + text.size(), xid);
  return error == std::errc{} && next == text.data() + text.size() ? std::optional(xid)
                                                                   : std::nullopt;
}

std::optional<Snapshot> Snapshot::parse(std::string_view text) {
  const auto begin = take(text, ':');
  const auto end = take(text, ':');
  if (!begin || !end || *begin > *end) return std::nullopt;
  Snapshot snapshot;
  snapshot.end_ = *end;
  while (!text.empty()) {
    const auto xid = take(text, ',');
    if (!xid || *xid < *begin || *xid >= *end) return std::nullopt;
    snapshot.under_way_.push_back(*xid);
  }
  std::sort(snapshot.under_way_.begin(), snapshot.under_way_.end());
  return snapshot;
}

bool Snapshot::sees(Xid xid) const {
  return xid < end_ && !std::binary_search(under_way_.begin(), under_way_.end(), xid);
}

}  // namespace relay::stream
