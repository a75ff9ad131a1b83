#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/pipeline_config.h"
#include "config/settings.h"
#include "connector/registry.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::cli {

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kInvalidConfiguration = 3 };

/// What every command is told: the settings after all layers, and what the command line adds.
struct Context {
  config::Settings settings;
  Registry registry;
  std::vector<config::PipelineConfig> file_pipelines;
  bool json = false;
  std::vector<Error> problems;  ///< of settings and file, for `check` to tell; else there are none
  std::vector<Error> warnings;  ///< about the settings: secrets that others may see
};

/// Prints an error to stderr, without secrets: message, then remedy.
void print_error(const Error& error);

/// A session with the relay's database for a command.
Result<std::unique_ptr<postgres::Connection>> connect(const Context& context);

/// The exit code that an error asks for, after printing it.
int failed(const Error& error);

}  // namespace relay::cli
