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

/// All files, in the order in which `init` runs them: what comes before, the migrations, the
/// functions, what comes after. They are those that were embedded at build time (a migration as a
/// statement that runs it once), and three that are written here: the check that the database side
/// is not newer than this program, which tables are missing, and the rows of the catalogue of
/// options.
std::vector<DatabaseFile> database_files(const Registry& registry);

/// A table of the catalogue of options, and a query for how many of its rows are not those that
/// `init` writes.
struct CatalogueTable {
  std::string name;
  std::string query;
};

std::vector<CatalogueTable> catalogue_tables(const Registry& registry);

}  // namespace relay::cli
