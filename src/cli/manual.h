#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_tree.h"
#include "config/fields.h"

namespace relay::cli {

/// A table of options in the manual.
struct ManualTable {
  std::string title;
  config::FieldTable fields;
};

/// What a manual page says beside its commands.
struct ManualPage {
  std::string version;
  std::string description;  ///< paragraphs are separated by an empty line
  std::vector<ManualTable> tables;
  std::vector<std::string> see_also;  ///< "postgres-stream(1)"
};

/// The manual page of a program in the macros of man(7): its commands and flags, the options of its
/// configuration, and its exit codes.
std::string manual_page(const CommandTree& program, const ManualPage& page);

}  // namespace relay::cli
