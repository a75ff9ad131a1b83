#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace relay::outbox {

/// A column of an outbox's table.
struct Column {
  std::string name;          ///< as a JSON string that PostgreSQL wrote, quotes included
  std::size_t position = 0;  ///< in the table, from 0
};

/// Puts the members of rows into the order of the table's columns. jsonb does not keep it: it sorts
/// the members of an object by the length of their names, then by their bytes. That order is the
/// same in each row, so that each member is where it is expected; no name is looked up.
/// Pure. One thread at a time.
class ColumnOrder {
 public:
  /// Leaves rows as they are.
  ColumnOrder() = default;
  /// `columns` are in the order of jsonb.
  explicit ColumnOrder(const std::vector<Column>& columns);

  /// Changes a row, or an array of rows, as jsonb is written, in place: neither its size nor a
  /// value changes. Members that are no known columns go last, in their order. What reads otherwise
  /// than expected stays as it is.
  void restore(char* text, std::size_t size);

 private:
  struct Known {
    std::string lead;  // the name, a colon and a blank
    std::size_t position;
  };
  bool restore_row(char*& next, const char* end);
  std::size_t find(std::string_view left, std::size_t from) const;
  void write(char* row, std::size_t size);

  std::vector<Known> columns_;
  std::vector<std::string_view> parts_;  // the members of a row by position; empty: it has none
  std::vector<std::string_view> others_;
  std::string row_;
};

}  // namespace relay::outbox
