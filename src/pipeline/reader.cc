#include "pipeline/reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "core/shortage.h"

namespace relay {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kReadWait{1000};
constexpr milliseconds kBeforeTending{100};
constexpr milliseconds kLeastTendPause{20};

}  // namespace

Reader::Reader(const PipelineSpec& spec, PipelineHooks hooks, Source& source,
               std::unique_ptr<envelope::Encoder> encoder, PipelineMetrics& metrics,
               SharedState& shared)
    : spec_(spec),
      hooks_(std::move(hooks)),
      source_(source),
      encoder_(std::move(encoder)),
      metrics_(metrics),
      shared_(shared),
      recovery_(Side::reader, spec, shared) {
  set_lag(std::nullopt);
}

void Reader::run(std::stop_token stop) {
  Backoff pause = recovery_.backoff();
  bool again = true;
  while (again) {
    try {
      read_all(stop);
      again = false;
    } catch (const std::exception& exception) {
      read_failed_ = true;
      again = recovery_.wait_after(shortage::error_of(exception, "reading"), pause, stop);
    }
  }
  shared_.reader_ended();
}

bool Reader::open(std::stop_token stop) {
  Backoff pause = recovery_.reconnect_backoff();
  while (!stop.stop_requested()) {
    const auto opened = source_.open(stop);
    if (opened) {
      metrics_.source_connected.Set(1);
      shared_.source_opened();
      if (!read_failed_) recovery_.succeeded();
      hooks_.source_opened();
      return true;
    }
    source_away();
    if (!recovery_.wait_after(opened.error(), pause, stop)) return false;
  }
  return false;
}

void Reader::read_all(std::stop_token stop) {
  if (!open(stop)) return;
  Backoff pause = recovery_.backoff();
  lag_due_ = SteadyClock::now() + kReadWait;
  auto busy_at = SteadyClock::now();
  bool had_work = false;
  while (wait_for_room(stop)) {
    if (!read_replay(stop)) return;
    ReadLimits limits = spec_.limits;
    limits.records = shared_.most_records(limits.records);
    auto batch = source_.read(limits, Deadline::after(kReadWait), stop);
    if (!batch) {
      source_away();
      if (!recovery_.wait_after(batch.error(), pause, stop)) return;
      continue;
    }
    if (pause.attempts() > 0 || read_failed_) {
      pause.reset();
      read_failed_ = false;
      metrics_.source_connected.Set(1);
      recovery_.succeeded();
    }
    if (batch->empty()) {
      measure_lag();
      if (source_.lag_may_be_withheld()) shared_.nothing_waits();
      const bool idle = !had_work || SteadyClock::now() - busy_at >= spec_.sleep_after;
      if (idle && may_fall_asleep() && shared_.fall_asleep()) return;
      continue;
    }
    const bool more_waits = batch->records.size() >= limits.records;
    metrics_.observe_batch(batch->records.size());
    if (!shared_.push(encoder_->encode(std::move(*batch)), stop)) return;
    busy_at = SteadyClock::now();
    had_work = true;
    // Counting a backlog takes time from reading it.
    if (!more_waits || busy_at >= lag_due_) measure_lag();
  }
}

/// False: the pipeline is to stop.
bool Reader::wait_for_room(std::stop_token stop) {
  const bool needs_sink = source_.reads_for_open_sink_only();
  tend_due_ = SteadyClock::now() + kBeforeTending;
  while (true) {
    const auto turn = shared_.wait_to_read(needs_sink, std::min(lag_due_, tend_due_), stop);
    if (turn != SharedState::Turn::not_yet) return turn == SharedState::Turn::read;
    // A backlog grows while its sink is slow.
    tend(stop);
    if (SteadyClock::now() >= lag_due_) measure_lag();
  }
}

bool Reader::may_fall_asleep() const {
  return spec_.may_sleep && !source_.more_to_come();
}

void Reader::source_away() {
  metrics_.source_connected.Set(0);
  set_lag(std::nullopt);
}

void Reader::tend(std::stop_token stop) {
  if (SteadyClock::now() < tend_due_) return;
  const auto pause = source_.tend(std::move(stop));
  tend_due_ = SteadyClock::now() + std::clamp(pause, kLeastTendPause, kReadWait);
}

void Reader::measure_lag() {
  lag_due_ = SteadyClock::now() + kReadWait;
  const auto lag = source_.lag();
  set_lag(lag);
  if (lag.value_or(0) == 0) shared_.nothing_waits();
}

/// A lag that is not known is no number: neither 0 nor the last one.
void Reader::set_lag(std::optional<std::int64_t> lag) {
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  metrics_.lag.Set(lag ? static_cast<double>(*lag) : kUnknown);
  shared_.set_lag(lag);
}

/// Reads the whole range of the replay that waits, if any. False: the pipeline is to stop.
bool Reader::read_replay(std::stop_token stop) {
  const auto request = shared_.replay();
  if (!request) return true;
  Backoff pause = recovery_.backoff();
  while (true) {
    auto batch = source_.read_range(request->from, request->to,
                                    fmt::format(":r{}", request->number), spec_.limits, stop);
    if (!batch && batch.error().error_class != ErrorClass::misconfigured) {
      if (!recovery_.wait_after(batch.error(), pause, stop)) return false;
      continue;
    }
    if (pause.attempts() > 0) recovery_.succeeded();
    if (!batch || batch->empty()) {
      hooks_.replay_finished(*request, batch ? std::nullopt : std::optional<Error>(batch.error()));
      shared_.end_replay();
      return true;
    }
    if (!shared_.push(encoder_->encode(std::move(*batch)), stop)) return false;
  }
}

}  // namespace relay
