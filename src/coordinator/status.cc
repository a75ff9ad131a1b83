#include "coordinator/status.h"

#include <fmt/core.h>

namespace relay::coordinator {

namespace {

constexpr std::chrono::seconds kStalledAfter{15};

}  // namespace

bool in_trouble(const PipelineStatus& status, std::chrono::system_clock::time_point now) {
  if (!status.owned) return false;
  if (status.report.error || status.outbox_problem) return true;
  if (status.report.state == PipelineState::paused) return false;
  return status.report.has_work && now - status.report.last_progress > kStalledAfter;
}

Error describe(const Blocker& blocker) {
  const std::string who = blocker.pid == 0
                              ? fmt::format("the prepared transaction \"{}\"", blocker.prepared)
                              : fmt::format("session {} ({})", blocker.pid, blocker.application);
  const std::string since =
      blocker.seconds < 0 ? "" : fmt::format(" for {:.0f} s", blocker.seconds);
  const std::string remedy =
      blocker.pid == 0
          ? std::string("commit it or roll it back: COMMIT PREPARED, ROLLBACK PREPARED")
          : fmt::format("end its transaction, or: select pg_terminate_backend({})", blocker.pid);
  return {ErrorClass::transient,
          "blocked",
          fmt::format("{} of the role {} has held{}: {}", who, blocker.role, since, blocker.holds),
          remedy,
          {}};
}

Error describe(const OutboxProblem& problem) {
  return {ErrorClass::transient,
          "outbox_problem",
          fmt::format("outbox {}: {}", problem.outbox, problem.problem),
          {},
          {}};
}

}  // namespace relay::coordinator
