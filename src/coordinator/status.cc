#include "coordinator/status.h"

namespace relay::coordinator {

namespace {

constexpr std::chrono::seconds kStalledAfter{15};

}  // namespace

bool in_trouble(const PipelineStatus& status, std::chrono::system_clock::time_point now) {
  if (!status.owned) return false;
  if (status.report.error) return true;
  if (status.report.state == PipelineState::paused) return false;
  return status.report.has_work && now - status.report.last_progress > kStalledAfter;
}

}  // namespace relay::coordinator
