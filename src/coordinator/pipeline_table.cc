#include "coordinator/pipeline_table.h"

namespace relay::coordinator {

PipelineFacts PipelineTable::facts_of(const PipelineEntry& entry) const {
  PipelineFacts facts;
  facts.name = entry.config.name;
  facts.owned = reconciler.at(entry.config.name).owned;
  facts.skips = entry.config.options.on_reject == "skip";
  if (Pipeline* const pipeline = entry.assembled.pipeline.get()) {
    facts.report = pipeline->report();
    facts.oldest_open_writer = pipeline->source().oldest_open_writer();
    facts.slow_read = pipeline->source().slow_read();
  }
  facts.dead_letters = entry.dead_letters;
  facts.outbox = entry.outbox_problem;
  facts.loss = entry.settled->loss();
  return facts;
}

PipelineStatus PipelineTable::status_of(const PipelineEntry& entry) const {
  PipelineStatus status;
  status.name = entry.config.name;
  status.direction = entry.config.direction;
  status.source_type = entry.config.source_type;
  status.sink_type = entry.config.sink_type;
  status.owned = reconciler.at(entry.config.name).owned;
  if (Pipeline* const pipeline = entry.assembled.pipeline.get()) {
    status.report = pipeline->report();
    status.oldest_open_writer = pipeline->source().oldest_open_writer();
  } else if (entry.problem) {
    const bool mistake = entry.problem->error_class == ErrorClass::misconfigured;
    status.report.state = mistake ? PipelineState::misconfigured : PipelineState::retrying;
    status.report.error = entry.problem;
    status.report.since = entry.problem_since;
  } else {
    status.report.state = status.owned ? PipelineState::starting : PipelineState::standby;
  }
  if (entry.outbox_problem && !entry.outbox_problem->problem.empty()) {
    status.outbox_problem = entry.outbox_problem;
  }
  status.causes = instance.causes.of(entry.config.name);
  if (!status.report.error && !status.causes.empty()) {
    status.report.error = status.causes.front().error;
  }
  return status;
}

}  // namespace relay::coordinator
