#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/pipeline_config.h"
#include "connector/registry.h"
#include "core/error.h"
#include "pipeline/pipeline.h"
#include "postgres/pool.h"
#include "state/dead_letter_statements.h"

namespace relay::coordinator {

/// What every pipeline of this process is made with.
struct Workshop {
  const Registry& registry;
  postgres::Pool& pool;
  Metrics& metrics;
  std::string group;
  std::string worker_id;
  /// Where dead letters go, in the database of the pool.
  const state::DeadLetterStatements& dead_letters = state::relay_dead_letters();
};

/// A pipeline, and through what the sweep announces news to its source.
struct Assembled {
  std::unique_ptr<Pipeline> pipeline;
  std::shared_ptr<Wake> wake;
};

/// Makes a pipeline of its configuration: looks up its backends, checks their options, compiles
/// templates and filter. Connects to nothing. Every problem of the configuration is in the error.
/// `settled` is what a pipeline of this name has settled so far.
Result<Assembled> assemble(const config::PipelineConfig& config, const Workshop& workshop,
                           PipelineHooks hooks, std::shared_ptr<SettledRows> settled);

/// What printing a pipeline's messages takes: a source that owns nothing and moves no position.
struct Tail {
  std::unique_ptr<Source> source;
  std::unique_ptr<envelope::Encoder> encoder;
  std::shared_ptr<Wake> wake;  ///< to be poked for the source to look at once
};
Result<Tail> assemble_tail(const config::PipelineConfig& config, const Registry& registry,
                           postgres::Pool& pool, const std::string& start);

/// The ends of a pipeline, to be inspected and nothing else.
struct InspectedEnds {
  std::unique_ptr<Sink> sink;
  std::unique_ptr<Source> source;      ///< null: an outbox of the relay's own database
  std::optional<std::string> subject;  ///< that of all messages, where it is known
};
/// `table`: what the outbox records, as far as there is one. Nothing of it need be known.
struct RecordedTable {
  std::string name;
  std::string schema;
};
Result<InspectedEnds> assemble_ends(const config::PipelineConfig& config, const Workshop& workshop,
                                    const std::optional<RecordedTable>& table);

/// The outbox of the relay's own database that a pipeline reads, as its configuration names it;
/// empty for other sources.
std::string outbox_of(const config::PipelineConfig& config, const Registry& registry);

/// All problems that `assemble` would find, one by one.
std::vector<Error> problems_of(const config::PipelineConfig& config, const Registry& registry);

/// What does not stop a pipeline and should be changed: secrets that are written as they are.
std::vector<Error> warnings_of(const config::PipelineConfig& config, const Registry& registry);

}  // namespace relay::coordinator
