#pragma once

#include <span>
#include <string_view>

namespace relay::cli {

/// One file of the database side, as it was when the program was built.
struct SqlFile {
  std::string_view name;
  std::string_view text;
};

/// All files, by the names of their folders and their own: "functions/010_gate.sql".
std::span<const SqlFile> embedded_sql();

}  // namespace relay::cli
