#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "pipeline/pipeline.h"

namespace relay::coordinator {

/// What is wrong with how an outbox records its table: consumers may miss something.
struct OutboxProblem {
  std::string outbox;
  std::string problem;  ///< names the remedy
};

/// How one pipeline does, as health, console and the catalog's status table show it.
struct PipelineStatus {
  std::string name;
  std::string direction;
  std::string source_type;
  std::string sink_type;
  bool enabled = true;
  bool owned = false;  ///< by this instance
  PipelineReport report;
  double oldest_open_writer_seconds = 0;
  int oldest_open_writer_pid = 0;
  std::optional<OutboxProblem> outbox_problem;  ///< of the outbox that it reads
};

/// A session, or a prepared transaction, whose locks on tables of ours keep the relay waiting.
struct Blocker {
  int pid = 0;  ///< 0: prepared
  std::string prepared;
  std::string role;
  std::string application;
  std::string holds;
  double seconds = -1;  ///< how long its transaction has been open; -1 where it may not be seen
};

/// Who blocks what, and how to end it.
Error describe(const Blocker& blocker);
Error describe(const OutboxProblem& problem);

/// How the instance does.
struct Snapshot {
  std::vector<PipelineStatus> pipelines;  ///< enabled ones, by name
  std::chrono::seconds uptime{0};
  bool database_connected = false;
  bool catalog_read = false;  ///< once, since the start
  std::optional<Error> database_error;
  std::vector<Blocker> blockers;
  std::string worker_id;
  std::string group;
  bool stopping = false;
  /// Since the control thread was last seen at work: while it hangs, what else is said here is old.
  std::chrono::seconds control_silent{0};
};

/// A pipeline that is in trouble: it has an error, its outbox has a problem, or it has work and no
/// progress for a while.
bool in_trouble(const PipelineStatus& status, std::chrono::system_clock::time_point now);

}  // namespace relay::coordinator
