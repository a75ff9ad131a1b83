#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "core/arena.h"
#include "envelope/changes.h"
#include "envelope/json_reader.h"

namespace relay::envelope {

/// The rows of a record, as the encoder slices them.
class TestRows {
 public:
  TestRows(std::initializer_list<std::string_view> rows) {
    for (const std::string_view row : rows) reader_.slice_object(arena_.copy(row), rows_);
  }
  const Rows& operator*() const { return rows_; }
  JsonReader& reader() { return reader_; }

 private:
  Arena arena_;
  JsonReader reader_;
  Rows rows_;
};

/// "update 0 2", "delete 1 -": what happens, old row, new row; a moved half ends in "moved".
inline std::string described(const Change& change) {
  const auto number = [](std::uint32_t row) { return row == kNoRow ? "-" : std::to_string(row); };
  return fmt::format("{} {} {}{}", to_string(change.op), number(change.old_row),
                     number(change.new_row), change.moved ? " moved" : "");
}

}  // namespace relay::envelope
