#pragma once

#include <string>

#include "config/pipeline_config.h"

namespace relay::config {

/// What an entry [[pipeline]] says beside the configuration: `name`, `enabled` and `direction`.
/// Puts them, and their problems, into `config`, whose place is set before.
void read_entry(const Node& entry, PipelineConfig& config);

/// True for the keys that `read_entry` reads.
bool is_entry_key(std::string_view key);

/// The problem of a second entry of the same name.
Error same_name(std::string_view name, std::string_view place, std::string_view other_place);

/// The problem of a key that is none of a file's sections.
Error unknown_section(const std::string& key, const Node& node);

/// The problem of `pipeline` where it is no list of tables.
Error no_list_of_tables(std::string_view place);

}  // namespace relay::config
