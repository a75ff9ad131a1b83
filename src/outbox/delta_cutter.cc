#include "outbox/delta_cutter.h"

#include <algorithm>
#include <utility>

#include "outbox/payload_decoder.h"

namespace relay::outbox {

DeltaCutter::DeltaCutter(std::int64_t max_rows, std::size_t max_bytes,
                         std::vector<std::string> key_columns)
    : max_rows_(std::max<std::int64_t>(max_rows, 1)),
      max_bytes_(max_bytes),
      key_columns_(std::move(key_columns)) {}

bool DeltaCutter::takes(const DeltaRow& row) const {
  if (rows_ == 0) return true;
  if (row.data.empty() || last_.data.empty()) return false;
  const bool fits = cell(row.number) == cell(first_) && bytes_ + row.data.size() <= max_bytes_;
  return fits || (!last_.inserted && row.inserted && same_key(last_, row));
}

void DeltaCutter::add(const DeltaRow& row) {
  if (rows_ == 0) {
    first_ = row.number;
    bytes_ = 0;
  }
  ++rows_;
  bytes_ += row.data.size();
  last_ = row;
}

/// Key columns as jsonb shows them: the same value always has the same text.
bool DeltaCutter::same_key(const DeltaRow& a, const DeltaRow& b) const {
  if (key_columns_.empty()) return false;
  return std::all_of(key_columns_.begin(), key_columns_.end(), [&](const std::string& column) {
    const std::string_view value = find_field(a.data, column);
    return !value.empty() && value == find_field(b.data, column);
  });
}

}  // namespace relay::outbox
