#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/message.h"
#include "postgres/binary_array.h"

namespace relay::feed {

/// Where a row of a feed comes from: the id of the outbox row, and a number in it. 0 is the row F
/// of a full refresh; the others are numbered from 1.
struct Place {
  std::int64_t outbox_id = 0;
  std::int64_t row_num = 0;

  friend auto operator<=>(const Place&, const Place&) = default;
};

/// Rows of a feed as the arrays that pgtrickle.relay_write_feed takes. Pure.
class FeedRows {
 public:
  /// `refresh_rows`: the rows of a full refresh follow its row F. Without them F stands for all of
  /// them.
  explicit FeedRows(bool refresh_rows);

  /// Adds the rows of one message. Misconfigured: it is not the change of one row in the native
  /// envelope.
  Result<void> add(const Message& message);

  bool empty() const { return count_ == 0; }
  std::size_t count() const { return count_; }
  std::size_t bytes() const { return bytes_; }
  /// Ids, numbers, actions, keys, new rows, old rows. Valid until the next `add`.
  std::vector<std::string_view> finish();

 private:
  void add_row(Place place, std::string_view action, std::string_view key, std::string_view new_row,
               std::string_view old_row);

  bool refresh_rows_;
  std::size_t count_ = 0;
  std::size_t bytes_ = 0;
  postgres::BinaryArray ids_;
  postgres::BinaryArray numbers_;
  postgres::BinaryArray actions_;
  postgres::BinaryArray keys_;
  postgres::BinaryArray new_rows_;
  postgres::BinaryArray old_rows_;
};

}  // namespace relay::feed
