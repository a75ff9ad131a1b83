#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "connector/source.h"
#include "core/error.h"
#include "pipeline/report.h"
#include "status/causes.h"

namespace relay::status {

/// A fault in how an outbox records its table: consumers may miss changes.
struct OutboxProblem {
  std::string outbox;
  std::string problem;            ///< with its remedy; empty: only the source was dropped
  std::string source_dropped_at;  ///< when its table was dropped; empty: it was not
  bool has_reader = false;        ///< a pipeline reads it
};

/// The state of one pipeline, as health and the catalog's status table show it.
struct PipelineStatus {
  std::string name;
  std::string direction;
  std::string source_type;
  std::string sink_type;
  bool enabled = true;
  bool owned = false;  ///< by this instance
  PipelineReport report;
  OpenWriter oldest_open_writer;
  std::optional<OutboxProblem> outbox_problem;  ///< of the outbox that it reads
  std::vector<Cause> causes;  ///< why it is degraded; without another error, `report` has the first
};

/// A session, or a prepared transaction, whose locks on the relay's tables keep it waiting.
struct Blocker {
  int pid = 0;  ///< 0: prepared
  std::string prepared;
  std::string role;
  std::string application;
  std::string holds;
  /// How long its transaction has been open; -1 where the role may not see it.
  double seconds = -1;
};

/// What the blocking session holds, and how to end it.
Error describe(const Blocker& blocker);
Error describe(const OutboxProblem& problem);
Error describe_dropped(const OutboxProblem& outbox);

/// The state of the instance.
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
  /// Since the control thread was last at work. While it hangs, the rest of this snapshot is old.
  std::chrono::seconds control_silent{0};
};

/// It has work, and has made no progress for a while.
bool stalled(const PipelineReport& report, std::chrono::system_clock::time_point now);

/// It has a cause to be degraded or, if this instance owns it, an error or no progress.
bool is_degraded(const PipelineStatus& status, std::chrono::system_clock::time_point now);

}  // namespace relay::status
