#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace relay::outbox {

/// A row of a claim check.
struct DeltaRow {
  std::int64_t number = 0;  ///< from 1
  bool inserted = false;    ///< otherwise deleted
  std::string_view data;    ///< a JSON object; empty: too large to be fetched
};

/// Decides where the rows of a claim check are cut into parts. A cut depends on nothing but the
/// rows around it, so that parts are the same however rows are fetched and wherever reading is
/// resumed:
///  - the rows 1..max_rows are part 1, the next max_rows part 2, and so on;
///  - a part that would grow beyond `max_bytes` is cut further; its pieces have the same number;
///  - a row too large to be fetched stands alone;
///  - a deleted row is not torn from the inserted row of the same key that follows it directly: the
///    part is one row longer then, and the next one shorter.
/// Pure. One thread at a time.
class DeltaCutter {
 public:
  static constexpr std::size_t kMaxBytes = 512 * 1024;

  DeltaCutter(std::int64_t max_rows, std::size_t max_bytes, std::vector<std::string> key_columns);

  /// Does the part under way take this row, the next one? If not, it ends before it.
  bool takes(const DeltaRow& row) const;
  /// The row is part of what is under way; its data lives until the next row was added.
  void add(const DeltaRow& row);
  /// A new part begins with the next row.
  void end_part() { rows_ = 0; }

  std::int64_t rows() const { return rows_; }
  std::int64_t first() const { return first_; }  ///< number of the part's first row
  std::int64_t last() const { return last_.number; }
  int part() const { return static_cast<int>(cell(first_)) + 1; }

 private:
  std::int64_t cell(std::int64_t number) const { return (number - 1) / max_rows_; }
  bool same_key(const DeltaRow& a, const DeltaRow& b) const;

  const std::int64_t max_rows_;
  const std::size_t max_bytes_;
  const std::vector<std::string> key_columns_;
  std::int64_t rows_ = 0;
  std::int64_t first_ = 1;
  std::size_t bytes_ = 0;
  DeltaRow last_;
};

}  // namespace relay::outbox
