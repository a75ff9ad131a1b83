#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/pipeline_config.h"
#include "config/settings.h"
#include "connector/registry.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::cli {

/// Begins the names of all metrics.
inline constexpr char kMetricsPrefix[] = "pgtrickle_relay_";

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kInvalidConfiguration = 3 };

/// The input of every command: the merged settings, and what the command line adds.
struct Context {
  config::Settings settings;
  Registry registry;
  std::vector<config::PipelineConfig> file_pipelines;
  bool json = false;
  std::vector<Error> problems;  ///< of settings and file; only `check` runs with any
  std::vector<Error> warnings;  ///< about the settings: secrets that other users may see
};

/// Prints an error to stderr, without secrets: message, then remedy.
void print_error(const Error& error);

/// A session with the relay's database for a command.
Result<std::unique_ptr<postgres::Connection>> connect(const Context& context);

/// The exit code that an error asks for, after printing it.
int failed(const Error& error);

/// What main() does: runs the commands, and returns their exit code. An exception that comes out of
/// them, a lack of memory, and output that cannot be written end `program` with an error.
int run_guarded(std::string_view program, const std::function<int()>& commands);

}  // namespace relay::cli
