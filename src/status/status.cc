#include "status/status.h"

#include <fmt/core.h>

namespace relay::status {

namespace {

constexpr std::chrono::seconds kStalledAfter{15};

}  // namespace

bool stalled(const PipelineReport& report, std::chrono::system_clock::time_point now) {
  if (report.state == PipelineState::paused) return false;
  return report.has_work && now - report.last_progress > kStalledAfter;
}

bool is_degraded(const PipelineStatus& status, std::chrono::system_clock::time_point now) {
  if (!status.causes.empty()) return true;
  return status.owned && (status.report.error || stalled(status.report, now));
}

Error describe(const Blocker& blocker) {
  const std::string holder = blocker.pid == 0
                                 ? fmt::format("the prepared transaction \"{}\"", blocker.prepared)
                                 : fmt::format("session {} ({})", blocker.pid, blocker.application);
  const std::string since =
      blocker.seconds < 0 ? "" : fmt::format(" for {:.0f} s", blocker.seconds);
  const std::string remedy =
      blocker.pid == 0
          ? std::string("commit it or roll it back: COMMIT PREPARED, ROLLBACK PREPARED")
          : fmt::format("end its transaction, or: select pg_terminate_backend({})", blocker.pid);
  return {
      ErrorClass::transient,
      "blocked",
      fmt::format("{} of the role {} has held{}: {}", holder, blocker.role, since, blocker.holds),
      remedy,
      {}};
}

Error describe(const OutboxProblem& problem) {
  return {ErrorClass::transient,
          "outbox_problem",
          fmt::format("outbox {}: {}", problem.outbox, problem.problem),
          fmt::format("do what it says; select pgtrickle.outbox_status('{}') shows when it is gone",
                      problem.outbox),
          {}};
}

Error describe_dropped(const OutboxProblem& outbox) {
  return {ErrorClass::transient,
          "outbox_source_dropped",
          fmt::format("the table of outbox {} was dropped at {}: what was recorded until then is "
                      "delivered, and nothing new",
                      outbox.outbox, outbox.source_dropped_at),
          fmt::format("restore the table, or delete what reads it and then select "
                      "pgtrickle.disable_outbox('{}')",
                      outbox.outbox),
          {}};
}

}  // namespace relay::status
