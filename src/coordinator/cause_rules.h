#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "connector/settled_rows.h"
#include "connector/source.h"
#include "pipeline/pipeline.h"
#include "postgres/pool.h"
#include "status/causes.h"
#include "status/status.h"

namespace relay::coordinator {

/// Unresolved dead letters of a pipeline.
struct DeadLetterCount {
  std::int64_t unresolved = 0;
  std::int64_t without_claim_rows = 0;  ///< claim checks whose rows were gone
};

/// What is known of a pipeline: the report of its threads, and what the coordinator measured.
struct PipelineFacts {
  std::string name;
  bool owned = false;
  bool skips = false;  ///< `on_reject = skip`: what is rejected is not in the dead letters
  PipelineReport report;
  DeadLetterCount dead_letters;
  std::optional<status::OutboxProblem> outbox;  ///< of the outbox that it reads
  OpenWriter oldest_open_writer;
  std::optional<SettledRows::Loss> loss;
};

/// Why the pipeline is degraded, if it is. Pure.
std::vector<status::Sighting> causes_of(const PipelineFacts& facts,
                                        std::chrono::system_clock::time_point now);

/// A stream table whose refresh fails.
struct StreamFailure {
  std::string table;  ///< with its schema, quoted where it must be
  bool suspended = false;
  std::string error;
};

/// A logical replication slot of the database.
struct ReplicationSlot {
  std::string name;
  bool active = false;    ///< a subscriber is connected to it
  bool lost = false;      ///< the server has removed WAL that it needs
  std::int64_t held = 0;  ///< bytes of WAL that it keeps
  /// Bytes until it is lost; empty: it keeps all (or is lost).
  std::optional<std::int64_t> safe = std::nullopt;
};

status::Sighting cause_of(const StreamFailure& failure);
/// An outbox that no pipeline reads.
status::Sighting cause_of(const status::OutboxProblem& outbox);
/// A replication slot that keeps too much WAL, or has lost some; empty: neither.
std::optional<status::Sighting> cause_of(const ReplicationSlot& slot,
                                         const config::SlotLimits& limits);
/// Operations wait because the pool has no session for them; empty: they do not.
std::optional<status::Sighting> cause_of(const postgres::Shortage& shortage);

}  // namespace relay::coordinator
