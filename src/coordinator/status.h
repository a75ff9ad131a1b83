#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/causes.h"
#include "core/error.h"
#include "pipeline/pipeline.h"

namespace relay::coordinator {

/// What is wrong with how an outbox records its table: consumers may miss something.
struct OutboxProblem {
  std::string outbox;
  std::string problem;            ///< names the remedy; empty: none but what follows
  std::string source_dropped_at;  ///< when its table was dropped; empty: it was not
  bool has_reader = false;        ///< some pipeline reads it
};

/// Unresolved dead letters of a pipeline.
struct DeadLetterCount {
  std::int64_t unresolved = 0;
  std::int64_t without_claim_rows = 0;  ///< claim checks whose rows were gone
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
  std::vector<Cause> causes;  ///< why it is degraded; `report` has the first as its error
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
Error describe_dropped(const OutboxProblem& outbox);

/// How the instance does.
struct Snapshot {
  std::vector<PipelineStatus> pipelines;  ///< enabled ones, by name
  std::chrono::seconds uptime{0};
  bool database_connected = false;
  bool catalog_read = false;  ///< once, since the start
  std::optional<Error> database_error;
  std::vector<Blocker> blockers;
  std::vector<Cause> causes;  ///< why the instance is degraded, whatever its pipelines do
  std::string worker_id;
  std::string group;
  bool stopping = false;
  /// Since the control thread was last seen at work: while it hangs, what else is said here is old.
  std::chrono::seconds control_silent{0};
};

/// It has work, and no progress for a while.
bool stalled(const PipelineReport& report, std::chrono::system_clock::time_point now);

/// A pipeline that is in trouble: it has an error or a cause to be degraded, or has stalled.
bool in_trouble(const PipelineStatus& status, std::chrono::system_clock::time_point now);

}  // namespace relay::coordinator
