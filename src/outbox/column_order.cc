#include "outbox/column_order.h"

#include <algorithm>
#include <cstring>

#include "outbox/json_scanner.h"

namespace relay::outbox {

namespace {

// Looking for a name that is not expected costs as much as there are columns.
constexpr std::size_t kMostOthers = 8;

}  // namespace

ColumnOrder::ColumnOrder(const std::vector<Column>& columns) {
  const bool in_order =
      std::is_sorted(columns.begin(), columns.end(),
                     [](const Column& a, const Column& b) { return a.position < b.position; });
  if (in_order) return;
  std::size_t count = 0;
  for (const Column& column : columns) {
    columns_.push_back({column.name + ": ", column.position});
    count = std::max(count, column.position + 1);
  }
  parts_.resize(count);
}

void ColumnOrder::restore(char* text, std::size_t size) {
  if (columns_.empty() || size == 0) return;
  char* next = text;
  const char* const end = text + size;
  if (*next == '{') {
    restore_row(next, end);
    return;
  }
  // "[{...}, {...}]"
  while (next < end) {
    next = static_cast<char*>(std::memchr(next, '{', static_cast<std::size_t>(end - next)));
    if (next == nullptr || !restore_row(next, end)) return;
  }
}

/// The column whose name `left` begins with; as many as there are where it is none.
std::size_t ColumnOrder::find(std::string_view left, std::size_t from) const {
  while (from < columns_.size() && !left.starts_with(columns_[from].lead)) ++from;
  return from;
}

/// From the opening brace to behind the closing one.
bool ColumnOrder::restore_row(char*& next, const char* end) {
  char* const begin = next;
  std::fill(parts_.begin(), parts_.end(), std::string_view());
  others_.clear();
  std::size_t expected = 0;
  JsonScanner scanner({next, static_cast<std::size_t>(end - next)});
  if (!scanner.take('{')) return false;
  if (!scanner.take('}')) {
    do {
      const std::string_view left = scanner.left();
      const std::size_t found = find(left, expected);
      std::string_view name;
      std::string_view value;
      if (found < columns_.size()) {
        scanner.skip(columns_[found].lead.size());
        expected = found + 1;
      } else if (!scanner.take_string(name) || !scanner.take(':')) {
        return false;
      }
      if (!scanner.take_value(value)) return false;
      const std::string_view member(
          left.data(), static_cast<std::size_t>(value.data() + value.size() - left.data()));
      if (found < columns_.size()) {
        parts_[columns_[found].position] = member;
      } else {
        others_.push_back(member);
        if (others_.size() > kMostOthers) return false;
      }
    } while (scanner.take_separator());
    if (!scanner.take('}')) return false;
  }
  next = begin + (scanner.left().data() - begin);
  write(begin, static_cast<std::size_t>(next - begin));
  return true;
}

void ColumnOrder::write(char* row, std::size_t size) {
  row_.assign(1, '{');
  const auto append = [this](std::string_view member) {
    if (member.empty()) return;
    if (row_.size() > 1) row_.append(", ");
    row_.append(member);
  };
  std::for_each(parts_.begin(), parts_.end(), append);
  std::for_each(others_.begin(), others_.end(), append);
  row_.push_back('}');
  // Another one has other white space than jsonb.
  if (row_.size() == size) std::memcpy(row, row_.data(), size);
}

}  // namespace relay::outbox
