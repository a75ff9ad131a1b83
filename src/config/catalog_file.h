#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/catalogue.h"
#include "core/error.h"

namespace relay::config {

/// A pipeline that the catalog shall have, as the author of a file wrote it: references stay
/// references.
struct CatalogEntry {
  std::string name;
  std::string direction;  ///< empty: not given
  std::string implied_direction;
  bool enabled = true;
  std::string json;   ///< what pgtrickle.set_relay takes
  std::string place;  ///< "pipelines.toml:9:1"
};

struct CatalogFile {
  std::vector<CatalogEntry> entries;
  std::vector<Error> problems;  ///< not empty: nothing of the file may be used
};

/// Reads a file of [[pipeline]] entries for the catalog: the form of a configuration file, where
/// the options for retention are allowed too, and `config` may hold the whole configuration as a
/// JSON text. An error, or a problem, names file, line and column. An error: it is no TOML.
/// Not checked here: the values of references, and what the database alone knows.
Result<CatalogFile> parse_catalog_file(const Catalogue& catalogue, std::string_view text,
                                       std::string_view file);

/// An entry of such a file, which `parse_catalog_file` reads as these very values: numbers with
/// their digits, null. `json` is an object as PostgreSQL writes a jsonb. An empty `direction` is
/// left out.
std::string catalog_entry(std::string_view name, std::string_view direction, bool enabled,
                          std::string_view json);

}  // namespace relay::config
