#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/context.h"

namespace relay::cli {

// One function a command; each returns the exit code of the program.

/// Runs the relay until SIGTERM or SIGINT.
int run_relay(Context& context);

/// Installs or upgrades the database side; `dry_run` prints the SQL instead.
int init_database(const Context& context, bool dry_run);

/// The same without output: how many files were new or changed.
Result<int> install_database_side(const Context& context);

/// Validates configuration, connectivity, privileges and sinks; prints every problem at once.
int check(const Context& context);

struct PipelineArguments {
  /// list, show, enable, disable, pause, resume, replay, take-over
  std::string action = "list";
  std::string name;
  std::string from_group;
  bool accept_loss = false;
  std::optional<std::int64_t> from;
  std::optional<std::int64_t> to;
};
int pipelines(const Context& context, const PipelineArguments& arguments);

struct DlqArguments {
  std::string action = "list";  ///< list, show, retry, discard, purge
  std::string pipeline;
  std::optional<std::int64_t> id;
  bool all = false;
  std::string older_than = "30 days";
  std::int64_t limit = 100;
};
int dead_letters(const Context& context, const DlqArguments& arguments);

/// Prints the messages of a pipeline live, without moving its position.
int tail(const Context& context, const std::string& pipeline, std::optional<std::int64_t> from,
         std::int64_t count);

int status(const Context& context);

/// Prints all options that there are, as the documentation shows them; with --json as a JSON
/// Schema.
int print_options(const Context& context);

struct QuickstartArguments {
  int rate = 20;          ///< orders a second
  double duration = 0;    ///< seconds; 0: until interrupted
  std::string directory;  ///< where the server's data goes; empty: a temporary directory
};
int quickstart(Context& context, const QuickstartArguments& arguments);

}  // namespace relay::cli
