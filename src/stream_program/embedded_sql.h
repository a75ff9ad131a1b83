#pragma once

#include <span>
#include <string_view>

namespace relay::stream_program {

struct SqlFile {
  std::string_view name;  ///< "migrations/0001_tables.sql", or the last part of it elsewhere
  std::string_view text;
};

/// The files of `sql/stream`, and what it takes from `sql`.
std::span<const SqlFile> embedded_sql();

}  // namespace relay::stream_program
