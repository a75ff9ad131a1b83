#pragma once

#include <string>

#include "config/fields.h"
#include "core/error.h"

namespace relay::file {

/// The options of the source `file`, checked.
struct SourceOptions {
  std::string path;
  std::string position_file;
  bool follow = false;
  std::string pipeline;  ///< whose source this is, for the log
};

config::FieldTable file_source_fields();
config::FieldTable stdin_source_fields();

/// `pipeline`: names the position file where `position_file` is not set.
Result<SourceOptions> parse_source_options(const config::Values& values,
                                           const std::string& pipeline);

}  // namespace relay::file
