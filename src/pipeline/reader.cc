// The reader side of Pipeline: reads and encodes.
#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <limits>

#include "core/log.h"
#include "core/shortage.h"
#include "pipeline/pipeline.h"

namespace relay {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kReadWait{1000};
constexpr milliseconds kBeforeTending{100};
constexpr milliseconds kLeastTendPause{20};
/// What is read ahead of a sink that has taken nothing yet. Brokers count how often they deliver a
/// message, and a stop gives back what was read: behind a sink that is stuck that is little.
constexpr std::size_t kProbeRecords = 100;

}  // namespace

void Pipeline::run_reader(std::stop_token stop) {
  Backoff pause = backoff();
  bool again = true;
  while (again) {
    try {
      read_loop(stop);
      again = false;
    } catch (const std::exception& exception) {
      read_failed_ = true;
      again = in_trouble(Side::reader, kSourceTrouble, shortage::error_of(exception, "reading"),
                         pause, stop);
    }
  }
  {
    const std::lock_guard lock(mutex_);
    reader_done_ = true;
  }
  changed_.notify_all();
}

bool Pipeline::open_source(std::stop_token stop) {
  Backoff pause = reconnect_backoff();
  while (!stop.stop_requested()) {
    const auto opened = source_->open(stop);
    if (opened) {
      metrics_->source_connected.Set(1);
      {
        const std::lock_guard lock(mutex_);
        source_open_ = true;
      }
      if (!read_failed_) clear_trouble(Side::reader, kSourceTrouble);
      hooks_.source_opened();
      return true;
    }
    metrics_->source_connected.Set(0);
    set_lag(std::nullopt);
    if (!in_trouble(Side::reader, kSourceTrouble, opened.error(), pause, stop)) return false;
  }
  return false;
}

void Pipeline::read_loop(std::stop_token stop) {
  if (!open_source(stop)) return;
  Backoff pause = backoff();
  lag_due_ = SteadyClock::now() + kReadWait;
  auto busy_at = SteadyClock::now();
  bool had_work = false;
  while (wait_for_room(stop)) {
    if (!read_replays(stop)) return;
    const ReadLimits limits = read_limits();
    auto batch = source_->read(limits, Deadline::after(kReadWait), stop);
    if (!batch) {
      metrics_->source_connected.Set(0);
      set_lag(std::nullopt);
      if (!in_trouble(Side::reader, kSourceTrouble, batch.error(), pause, stop)) return;
      continue;
    }
    if (pause.attempts() > 0 || read_failed_) {
      pause.reset();
      read_failed_ = false;
      metrics_->source_connected.Set(1);
      clear_trouble(Side::reader, kSourceTrouble);
    }
    if (batch->empty()) {
      note_lag();
      note_nothing_came();
      const bool idle = !had_work || SteadyClock::now() - busy_at >= spec_.sleep_after;
      if (idle && fall_asleep()) return;
      continue;
    }
    const bool more_waits = batch->records.size() >= limits.records;
    metrics_->observe_batch(batch->records.size());
    if (!enqueue(encoder_->encode(std::move(*batch)), stop)) return;
    busy_at = SteadyClock::now();
    had_work = true;
    // Counting a backlog takes time from reading it.
    if (!more_waits || busy_at >= lag_due_) note_lag();
  }
}

/// False: the pipeline is to stop.
bool Pipeline::wait_for_room(std::stop_token stop) {
  const bool needs_sink = source_->reads_for_open_sink_only();
  const auto ready = [&] {
    return stopping_ || (!paused_ && !halted_ && has_room_locked() && (sink_open_ || !needs_sink));
  };
  std::unique_lock lock(mutex_);
  tend_due_ = SteadyClock::now() + kBeforeTending;
  // A backlog grows while its sink is slow.
  while (!changed_.wait_until(lock, stop, std::min(lag_due_, tend_due_), ready) &&
         !stop.stop_requested()) {
    lock.unlock();
    tend_source(stop);
    if (SteadyClock::now() >= lag_due_) note_lag();
    lock.lock();
  }
  return !stopping_ && !stop.stop_requested();
}

/// While the sink is stuck, only one small batch waits for it, which may come bit by bit.
bool Pipeline::has_room_locked() const {
  if (sink_takes_) return queue_.has_room();
  return queue_.empty() && in_flight_ < kProbeRecords;
}

ReadLimits Pipeline::read_limits() {
  ReadLimits limits = spec_.limits;
  const std::lock_guard lock(mutex_);
  if (!sink_takes_) {
    limits.records =
        std::min(limits.records, kProbeRecords - std::min(in_flight_, kProbeRecords - 1));
  }
  return limits;
}

void Pipeline::tend_source(std::stop_token stop) {
  if (SteadyClock::now() < tend_due_) return;
  const auto pause = source_->tend(std::move(stop));
  tend_due_ = SteadyClock::now() + std::clamp(pause, kLeastTendPause, kReadWait);
}

void Pipeline::note_lag() {
  lag_due_ = SteadyClock::now() + kReadWait;
  const auto lag = source_->lag();
  set_lag(lag);
  const std::lock_guard lock(mutex_);
  // Nothing waits: that is progress too.
  if (in_flight_ == 0 && lag_.value_or(0) == 0) set_progress();
}

void Pipeline::note_nothing_came() {
  if (!source_->lag_may_be_withheld()) return;
  const std::lock_guard lock(mutex_);
  if (in_flight_ == 0) set_progress();
}

/// A figure that is not known is no number: neither 0 nor the last one.
void Pipeline::set_lag(std::optional<std::int64_t> lag) {
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  metrics_->lag.Set(lag ? static_cast<double>(*lag) : kUnknown);
  const std::lock_guard lock(mutex_);
  lag_ = lag;
}

bool Pipeline::read_replays(std::stop_token stop) {
  std::optional<ReplayRequest> request;
  {
    const std::lock_guard lock(mutex_);
    if (!replays_.empty()) request = replays_.front();
  }
  if (!request) return true;
  Backoff pause = backoff();
  while (true) {
    auto batch = source_->read_range(request->from, request->to,
                                     fmt::format(":r{}", request->number), spec_.limits, stop);
    if (!batch && batch.error().error_class != ErrorClass::misconfigured) {
      if (!in_trouble(Side::reader, kSourceTrouble, batch.error(), pause, stop)) return false;
      continue;
    }
    if (pause.attempts() > 0) clear_trouble(Side::reader, kSourceTrouble);
    if (!batch || batch->empty()) {
      hooks_.replay_finished(*request, batch ? std::nullopt : std::optional<Error>(batch.error()));
      const std::lock_guard lock(mutex_);
      replays_.pop_front();
      return true;
    }
    if (!enqueue(encoder_->encode(std::move(*batch)), stop)) return false;
  }
}

bool Pipeline::enqueue(MessageBatch batch, std::stop_token stop) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [this] { return stopping_ || queue_.has_room(); });
    if (stopping_ || stop.stop_requested()) return false;
    in_flight_ += batch.records.records.size();
    queue_.push(std::move(batch));
    note_state_locked();
  }
  changed_.notify_all();
  return true;
}

bool Pipeline::fall_asleep() {
  if (!spec_.may_sleep || source_->more_to_come()) return false;
  const std::lock_guard lock(mutex_);
  if (in_flight_ > 0 || !sink_open_ || paused_ || halted_ || retry_letters_ || !replays_.empty() ||
      trouble_[0] || trouble_[1] || lag_.value_or(0) > 0) {
    return false;
  }
  asleep_ = true;
  note_state_locked();
  return true;
}

}  // namespace relay
