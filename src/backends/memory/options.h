#pragma once

#include <cstdint>
#include <string>

#include "config/fields.h"

namespace relay::memory {

struct Options {
  std::int64_t keep = 0;
  std::string pipeline;  ///< whose sink this is, for the log
};

config::FieldTable fields();

Result<Options> parse_options(const config::Values& values);

}  // namespace relay::memory
