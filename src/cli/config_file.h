#pragma once

#include <string>

#include "config/pipeline_config.h"
#include "core/error.h"

namespace relay::cli {

/// Misconfigured, with the remedy: it cannot be read.
Result<std::string> read_config_file(const std::string& path, std::string remedy);

/// Reads and parses a TOML configuration file. Misconfigured: it cannot be read or parsed.
Result<config::FileConfig> load_config_file(const config::Catalogue& catalogue,
                                            const std::string& path);

}  // namespace relay::cli
