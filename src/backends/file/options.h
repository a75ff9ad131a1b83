#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "config/fields.h"

namespace relay::file {

enum class Format { jsonl, json_pretty, csv };

/// The options of the sinks `stdout` and `file`, checked.
struct Options {
  Format format{};
  std::string path;  ///< empty: standard output
  std::int64_t rotate_bytes = 0;
  std::chrono::milliseconds rotate_interval{};
  bool compress_rotated = false;
  bool fsync = false;
  std::string pipeline;  ///< whose sink this is, for the log
};

config::FieldTable stdout_fields();
config::FieldTable file_fields();

/// Checks what single options cannot say. Misconfigured: options that contradict each other.
Result<Options> parse_options(const config::Values& values);

}  // namespace relay::file
