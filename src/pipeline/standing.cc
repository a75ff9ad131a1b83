#include "pipeline/standing.h"

#include <utility>

namespace relay {

void Standing::end_with(PipelineEnd reason) {
  if (may_commit()) end = std::move(reason);
}

PipelineState Standing::state(std::size_t in_flight) const {
  if (!may_commit()) return PipelineState::standby;
  if (halted) return PipelineState::stopped;
  if (end) return PipelineState::retrying;
  for (const auto& failure : failures) {
    if (failure && failure->error_class == ErrorClass::misconfigured) {
      return PipelineState::misconfigured;
    }
  }
  if (failing()) return PipelineState::retrying;
  if (paused) return PipelineState::paused;
  if (asleep) return PipelineState::idle;
  if (!source_open || !sink_open) return PipelineState::starting;
  return in_flight > 0 ? PipelineState::running : PipelineState::idle;
}

std::optional<Error> Standing::error() const {
  if (end && end->kind == PipelineEnd::Kind::defect) return end->error;
  return failures[1] ? failures[1] : failures[0];
}

}  // namespace relay
