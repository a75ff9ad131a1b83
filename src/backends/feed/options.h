#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "config/fields.h"
#include "core/error.h"

namespace relay::feed {

/// The options of the sink, checked.
struct Options {
  std::string feed;  ///< the feed's table in the schema pgtrickle_changes
  std::size_t rows_per_statement = 0;
  std::chrono::milliseconds operation_timeout{};
  std::string pipeline;
};

config::FieldTable sink_fields();
Result<Options> parse_options(const config::Values& values);

}  // namespace relay::feed
