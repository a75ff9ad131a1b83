#include "envelope/changes.h"

#include <algorithm>
#include <functional>

#include "envelope/decimal.h"

namespace relay::envelope {
namespace {

constexpr std::uint8_t kMovedOut = 1;
constexpr std::uint8_t kMovedIn = 2;
constexpr std::uint32_t kUnnamed = std::numeric_limits<std::uint32_t>::max();

}  // namespace

std::string_view to_string(Op op) {
  switch (op) {
    case Op::insert:
      return "insert";
    case Op::update:
      return "update";
    case Op::remove:
      return "delete";
    case Op::refresh:
      return "refresh";
  }
  return "";
}

void KeyMatcher::add(const Rows& rows, std::uint32_t row,
                     std::span<const std::string> key_columns) {
  const std::size_t begin = keys_.size();
  for (const std::string& column : key_columns) {
    const std::string_view* value = rows.find(row, column);
    if (value == nullptr) {
      keys_.resize(begin);
      return;
    }
    if (kind_of(*value) == JsonKind::number) {
      Decimal(*value).append_canonical(keys_);
    } else {
      keys_.append(*value);
    }
    keys_.push_back('\0');  // never occurs in JSON
  }
  const std::string_view key(keys_.data() + begin, keys_.size() - begin);
  entries_.push_back({std::hash<std::string_view>{}(key), begin, key.size(), row});
}

void KeyMatcher::match(const Rows& rows, std::size_t deleted,
                       std::span<const std::string> key_columns,
                       std::vector<std::uint32_t>& partner) {
  partner.assign(rows.size(), kNoRow);
  if (key_columns.empty() || deleted == 0 || deleted == rows.size()) return;
  keys_.clear();
  entries_.clear();
  for (std::uint32_t row = 0; row < rows.size(); ++row) add(rows, row, key_columns);

  const auto same_key = [&](const Entry& a, const Entry& b) {
    return a.hash == b.hash && key(a) == key(b);
  };
  std::sort(entries_.begin(), entries_.end(), [&](const Entry& a, const Entry& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    if (const int order = key(a).compare(key(b)); order != 0) return order < 0;
    return a.row < b.row;
  });
  for (std::size_t i = 0; i < entries_.size();) {
    std::size_t end = i + 1;
    while (end < entries_.size() && same_key(entries_[i], entries_[end])) ++end;
    if (end == i + 2 && entries_[i].row < deleted && entries_[i + 1].row >= deleted) {
      partner[entries_[i].row] = entries_[i + 1].row;
      partner[entries_[i + 1].row] = entries_[i].row;
    }
    i = end;
  }
}

void DeltaSplitter::split(std::span<const Change> changes, std::size_t routes,
                          std::int64_t max_rows) {
  pieces_.clear();
  sort_into_buckets(changes, routes);
  std::size_t begin = 0;
  for (const std::size_t end : bucket_ends_) {
    cut(changes, begin, end, std::max<std::int64_t>(max_rows, 1));
    begin = end;
  }
}

// A bucket holds the changes that one route gets in a row. First come the buckets of routes that
// only lose moved rows, and the early buckets of routes that lose and get some; then all others.
void DeltaSplitter::sort_into_buckets(std::span<const Change> changes, std::size_t routes) {
  halves_.assign(routes, 0);
  for (const Change& change : changes) {
    if (change.moved) halves_[change.route] |= change.op == Op::remove ? kMovedOut : kMovedIn;
  }
  bucket_of_.resize(changes.size());
  bucket_names_.assign(routes * 2, kUnnamed);
  bucket_ends_.clear();  // while sorting: sizes
  for (const bool early : {true, false}) {
    for (std::size_t i = 0; i < changes.size(); ++i) {
      const Change& change = changes[i];
      const std::uint8_t halves = halves_[change.route];
      const bool leaves = change.moved && change.op == Op::remove;
      const bool is_early = halves == kMovedOut || (halves == (kMovedOut | kMovedIn) && leaves);
      if (is_early != early) continue;
      std::uint32_t& name = bucket_names_[change.route * 2 + (early ? 0 : 1)];
      if (name == kUnnamed) {
        name = static_cast<std::uint32_t>(bucket_ends_.size());
        bucket_ends_.push_back(0);
      }
      ++bucket_ends_[name];
      bucket_of_[i] = name;
    }
  }
  // Sizes become begins; filling the buckets moves each begin to its bucket's end.
  std::size_t begin = 0;
  for (std::size_t& bucket : bucket_ends_) {
    const std::size_t size = bucket;
    bucket = begin;
    begin += size;
  }
  order_.resize(changes.size());
  for (std::size_t i = 0; i < changes.size(); ++i) {
    order_[bucket_ends_[bucket_of_[i]]++] = static_cast<std::uint32_t>(i);
  }
}

void DeltaSplitter::cut(std::span<const Change> changes, std::size_t begin, std::size_t end,
                        std::int64_t max_rows) {
  const std::size_t first_piece = pieces_.size();
  std::size_t piece_begin = begin;
  std::int64_t rows = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const std::int64_t more = changes[order_[i]].rows();
    if (i > piece_begin && rows + more > max_rows) {
      pieces_.push_back({piece_begin, i, 0, false});
      piece_begin = i;
      rows = 0;
    }
    rows += more;
  }
  pieces_.push_back({piece_begin, end, 0, true});
  if (pieces_.size() == first_piece + 1) return;
  for (std::size_t i = first_piece; i < pieces_.size(); ++i) {
    pieces_[i].part = static_cast<int>(i - first_piece) + 1;
  }
}

}  // namespace relay::envelope
