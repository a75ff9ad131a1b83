#include "pipeline/recovery.h"

#include <algorithm>
#include <random>
#include <utility>

#include "core/log.h"
#include "core/shortage.h"
#include "pipeline/retry_delay.h"

namespace relay {

namespace {

/// Asking the machine for randomness takes longer than delivering a small batch.
std::uint64_t next_seed() {
  thread_local std::mt19937_64 seeds(std::random_device{}());
  return seeds();
}

}  // namespace

std::string_view failure_event(Side side) {
  return side == Side::reader ? "source_failed" : "sink_failed";
}

Recovery::Recovery(Side side, const PipelineSpec& spec, SharedState& shared)
    : side_(side), spec_(spec), shared_(shared) {}

bool Recovery::wait_after(const Error& met, Backoff& backoff, std::stop_token stop) {
  if (met.error_class == ErrorClass::cancelled || stop.stop_requested()) return false;
  if (const auto reason = end_of(met)) {
    end(*reason);
    return false;
  }
  const Error error = shortage::explained(met);
  report(error);
  return shared_.wait_for(retry_delay(error, backoff), std::move(stop));
}

void Recovery::report(const Error& error) {
  shared_.set_failure(side_, error);
  log::failure(failure_event(side_), spec_.name, error);
}

void Recovery::succeeded() {
  const bool failed = shared_.clear_failure(side_);
  if (!std::exchange(worked_, true) || failed) log::recovered(failure_event(side_), spec_.name);
}

void Recovery::end(const PipelineEnd& reason) {
  const Error& error = reason.error;
  if (reason.may_commit()) {
    log::failure(failure_event(side_), spec_.name, error);
  } else {
    log::warn(error.code, spec_.name, "{}", error.message);
  }
  shared_.end(reason);
}

Backoff Recovery::backoff() const {
  return Backoff(spec_.retry_min, spec_.retry_max, next_seed());
}

Backoff Recovery::reconnect_backoff() const {
  return Backoff(spec_.retry_min, std::min(spec_.retry_max, kReconnectMax), next_seed());
}

}  // namespace relay
