#pragma once

#include <string>

#include "config/pipeline_config.h"
#include "core/error.h"

namespace relay::cli {

/// Reads and parses a TOML configuration file. Misconfigured: it cannot be read or parsed.
Result<config::FileConfig> load_config_file(const config::Catalogue& catalogue,
                                            const std::string& path);

}  // namespace relay::cli
