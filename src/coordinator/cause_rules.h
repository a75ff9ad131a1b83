#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "connector/settled_rows.h"
#include "connector/source.h"
#include "coordinator/causes.h"
#include "coordinator/status.h"
#include "pipeline/pipeline.h"
#include "postgres/pool.h"

namespace relay::coordinator {

/// What is known of a pipeline: the report of its threads, and what the coordinator measured.
struct PipelineFacts {
  std::string name;
  bool owned = false;
  bool skips = false;  ///< `on_reject = skip`: what is rejected is not in the dead letters
  PipelineReport report;
  DeadLetterCount dead_letters;
  std::optional<OutboxProblem> outbox;  ///< of the outbox that it reads
  OpenWriter oldest_open_writer;
  std::chrono::milliseconds slow_read{};
  std::optional<SettledRows::Loss> loss;
};

/// Why the pipeline is degraded, if it is. Pure.
std::vector<Sighting> causes_of(const PipelineFacts& facts,
                                std::chrono::system_clock::time_point now);

/// A stream table whose refresh fails.
struct StreamFailure {
  std::string table;  ///< with its schema, quoted where it must be
  bool suspended = false;
  std::string error;
};

Sighting cause_of(const StreamFailure& failure);
/// An outbox that no pipeline reads.
Sighting cause_of(const OutboxProblem& outbox);
/// Operations wait because the pool has no session for them; empty: they do not.
std::optional<Sighting> cause_of(const postgres::Shortage& shortage);

}  // namespace relay::coordinator
