#pragma once

#include <string>
#include <vector>

#include "connector/registry.h"

namespace relay::cli {

/// One file of the database side.
struct DatabaseFile {
  std::string name;
  std::string text;
};

/// All files, in the order in which `init` runs them: those that were embedded at build time, and
/// the rows of the catalogue of options, written from the tables of this program.
std::vector<DatabaseFile> database_files(const Registry& registry);

}  // namespace relay::cli
