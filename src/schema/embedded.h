#pragma once

#include <span>
#include <string_view>

namespace relay::schema {

/// A file that is part of the program, as it was when the program was built.
struct EmbeddedFile {
  std::string_view name;
  std::string_view text;
};

/// sql/manifest.txt and src/schema/installed.sql.
std::span<const EmbeddedFile> embedded_files();

}  // namespace relay::schema
