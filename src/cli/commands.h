#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
  std::optional<bool> wait;  ///< for the end of a replay; nothing: on a terminal
};
int pipelines(const Context& context, const PipelineArguments& arguments);

struct DlqArguments {
  std::string action = "list";  ///< list, show, retry, discard, purge
  std::string pipeline;
  std::optional<std::int64_t> id;
  std::string older_than = "30 days";
  std::int64_t limit = 100;
  std::optional<bool> wait;  ///< for the end of a retry; nothing: on a terminal
};
int dead_letters(const Context& context, const DlqArguments& arguments);

struct ApplyArguments {
  std::string file;  ///< "-": standard input
  bool dry_run = false;
  bool prune = false;
};
/// Makes the pipelines of the database equal to a file, all or nothing, and prints the difference.
int apply(const Context& context, const ApplyArguments& arguments);

struct ExportArguments {
  std::vector<std::string> names;  ///< empty: all
  bool mask_secrets = false;
};
/// Prints pipelines of the database as a file for `apply`.
int export_pipelines(const Context& context, const ExportArguments& arguments);

struct TailArguments {
  std::string pipeline;
  std::optional<std::int64_t> from;
  std::int64_t count = 0;  ///< 0: no end
  bool pretty = false;     ///< a live table, on a terminal
};
/// Prints the messages of a pipeline live, without moving its position.
int tail(const Context& context, const TailArguments& arguments);

/// What runs, or of one pipeline alone.
int status(const Context& context, const std::string& pipeline);

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
