#include "envelope/change_pairing.h"

#include <algorithm>

namespace relay::envelope {
namespace {

bool has_key(const Rows& rows, std::uint32_t row, std::span<const std::string> key_columns) {
  return !key_columns.empty() &&
         std::all_of(key_columns.begin(), key_columns.end(),
                     [&](const std::string& column) { return rows.find(row, column) != nullptr; });
}

}  // namespace

std::span<const Change> ChangePairing::of_delta(const Rows& rows, std::size_t deleted, bool refresh,
                                                std::span<const std::string> key_columns) {
  changes_.clear();
  if (refresh) {
    partner_.assign(rows.size(), kNoRow);
  } else {
    matcher_.match(rows, deleted, key_columns, partner_);
  }
  for (std::uint32_t row = 0; row < rows.size(); ++row) {
    const bool is_old = row < deleted;
    if (partner_[row] == kNoRow) {
      const Op op = refresh ? Op::refresh : is_old ? Op::remove : Op::insert;
      changes_.push_back({op, is_old ? row : kNoRow, is_old ? kNoRow : row, 0, false});
    } else if (is_old) {
      changes_.push_back({Op::update, row, partner_[row], 0, false});
    }
  }
  return changes_;
}

std::span<const Change> ChangePairing::of_row_change(const Rows& rows, const Change& change,
                                                     std::span<const std::string> key_columns) {
  changes_.clear();
  if (change.is_pair() && changes_key(rows, change, key_columns)) {
    changes_.push_back({Op::remove, change.old_row, kNoRow, 0, true});
    changes_.push_back({Op::insert, kNoRow, change.new_row, 0, true});
  } else if (change.row() != kNoRow) {
    changes_.push_back(change);
  }
  return changes_;
}

bool ChangePairing::all_updates(const Rows& rows, std::size_t deleted,
                                std::span<const std::string> key_columns) {
  matcher_.match(rows, deleted, key_columns, partner_);
  return std::find(partner_.begin(), partner_.end(), kNoRow) == partner_.end();
}

// A source may report an old row without its key: then its key is that of the new row.
bool ChangePairing::changes_key(const Rows& rows, const Change& change,
                                std::span<const std::string> key_columns) {
  return has_key(rows, change.old_row, key_columns) && has_key(rows, change.new_row, key_columns) &&
         !all_updates(rows, 1, key_columns);
}

}  // namespace relay::envelope
