#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "envelope/json_reader.h"

namespace relay::envelope {

/// A byte of a name that needs no quotes: a letter, a digit, '_', or a part of a character beyond
/// ASCII.
bool is_plain_byte(char c);

/// A column of a row, or something inside a JSON column: `region`, `address.city`, `items.0.sku`.
struct ColumnPath {
  std::string column;
  std::vector<std::string> inside;  ///< steps into the column's value

  /// Reads a dotted path; a part in double quotes is taken as it is ("" is a quote in it). False:
  /// not a path.
  static bool parse(std::string_view text, ColumnPath& path);
  /// The path as it would be written in a template.
  std::string to_string() const;
};

/// A row to look values up in.
struct RowView {
  const Rows* rows = nullptr;  ///< null: there is no row, each column is NULL
  std::size_t index = 0;
};

/// What a path leads to: a raw JSON value ("null" where the column is NULL or where there is
/// nothing inside it), or an empty view where the row has no such column at all.
std::string_view find_value(const RowView& row, const ColumnPath& path, JsonReader& reader);

}  // namespace relay::envelope
