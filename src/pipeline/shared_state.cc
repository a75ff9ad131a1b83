#include "pipeline/shared_state.h"

#include <utility>

namespace relay {

SharedState::SharedState(std::size_t batch_bytes, prometheus::Gauge& state_metric)
    : state_metric_(state_metric), queue_(batch_bytes) {
  report_.since = report_.last_progress = std::chrono::system_clock::now();
}

bool SharedState::begin() {
  const MutexLock lock(mutex_);
  if (stopping_ || !done(Side::reader) || !done(Side::sender)) return false;
  done_ = {false, false};
  retries_last_ = false;  // dead letters go first in each life
  standing_.asleep = rests_ = false;
  note_progress();
  note_state();
  return true;
}

void SharedState::not_started(const Error& error, bool sender_runs) {
  const MutexLock lock(mutex_);
  done(Side::reader) = true;
  if (!sender_runs) done(Side::sender) = true;
  standing_.failure(Side::reader) = error;
  note_state();
  changed_.notify_all();
}

void SharedState::request_stop() {
  const MutexLock lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

void SharedState::end(PipelineEnd reason) {
  const MutexLock lock(mutex_);
  standing_.end_with(std::move(reason));
  stopping_ = true;
  note_state();
  changed_.notify_all();
}

bool SharedState::ended() const {
  const MutexLock lock(mutex_);
  return done_[0] && done_[1];
}

void SharedState::wait_ended(Deadline deadline) {
  const MutexLock lock(mutex_);
  changed_.wait_until(mutex_, deadline.at(),
                      [this]() RELAY_REQUIRES(mutex_) { return done_[0] && done_[1]; });
}

bool SharedState::asked_while_asleep() const {
  const MutexLock lock(mutex_);
  return rests_ && (retries_wanted_ || !replays_.empty());
}

PipelineReport SharedState::report() const {
  const MutexLock lock(mutex_);
  PipelineReport report = report_;
  report.state = standing_.state(queue_.in_flight());
  report.error = standing_.error();
  report.has_work = queue_.in_flight() > 0 || report.lag.value_or(0) > 0;
  report.asleep = standing_.asleep;
  report.end = standing_.end;
  report.rejections = rejections_.report();
  return report;
}

/// Idle and running alternate with each batch. Reported as "since when", they are one state.
void SharedState::note_state() {
  const PipelineState now = standing_.state(queue_.in_flight());
  if (now == report_.state) return;
  const auto settled = [](PipelineState state) {
    return state == PipelineState::idle || state == PipelineState::running;
  };
  if (!(settled(now) && settled(report_.state))) report_.since = std::chrono::system_clock::now();
  report_.state = now;
  state_metric_.Set(static_cast<double>(now));
}

void SharedState::note_progress() {
  report_.last_progress = std::chrono::system_clock::now();
}

void SharedState::set_paused(bool paused) {
  const MutexLock lock(mutex_);
  if (standing_.paused == paused && (paused || !standing_.halted)) return;
  standing_.paused = paused;
  if (!paused) standing_.halted = false;
  note_progress();
  note_state();
  changed_.notify_all();
}

void SharedState::add_replay(ReplayRequest request) {
  const MutexLock lock(mutex_);
  replays_.push_back(request);
  changed_.notify_all();
}

void SharedState::request_retries() {
  const MutexLock lock(mutex_);
  retries_wanted_ = true;
  changed_.notify_all();
}

void SharedState::nudge() {
  const MutexLock lock(mutex_);
  ++nudges_;
  changed_.notify_all();
}

bool SharedState::wait_for(std::chrono::milliseconds time, std::stop_token stop) {
  const MutexLock lock(mutex_);
  const auto before = nudges_;
  changed_.wait_for(mutex_, stop, time,
                    [&]() RELAY_REQUIRES(mutex_) { return stopping_ || nudges_ != before; });
  return !stopping_ && !stop.stop_requested();
}

void SharedState::set_failure(Side side, const Error& error) {
  const MutexLock lock(mutex_);
  standing_.failure(side) = error;
  note_state();
}

bool SharedState::clear_failure(Side side) {
  const MutexLock lock(mutex_);
  const bool had = standing_.failure(side).has_value();
  standing_.failure(side).reset();
  note_state();
  return had;
}

SharedState::Turn SharedState::wait_to_read(bool needs_sink, SteadyClock::time_point until,
                                            std::stop_token stop) {
  const MutexLock lock(mutex_);
  const bool ready = changed_.wait_until(mutex_, stop, until, [&]() RELAY_REQUIRES(mutex_) {
    return stopping_ || (!held() && queue_.may_read() && (standing_.sink_open || !needs_sink));
  });
  if (stop.stop_requested() || (ready && stopping_)) return Turn::stop;
  return ready ? Turn::read : Turn::not_yet;
}

std::size_t SharedState::most_records(std::size_t wanted) const {
  const MutexLock lock(mutex_);
  return queue_.most_records(wanted);
}

std::optional<ReplayRequest> SharedState::replay() const {
  const MutexLock lock(mutex_);
  return replays_.empty() ? std::nullopt : std::optional(replays_.front());
}

void SharedState::end_replay() {
  const MutexLock lock(mutex_);
  replays_.pop_front();
}

bool SharedState::push(MessageBatch batch, std::stop_token stop) {
  {
    const MutexLock lock(mutex_);
    changed_.wait(mutex_, stop,
                  [this]() RELAY_REQUIRES(mutex_) { return stopping_ || queue_.has_room(); });
    if (stopping_ || stop.stop_requested()) return false;
    queue_.push(std::move(batch));
    note_state();
  }
  changed_.notify_all();
  return true;
}

void SharedState::source_opened() {
  const MutexLock lock(mutex_);
  standing_.source_open = true;
}

void SharedState::set_lag(std::optional<std::int64_t> lag) {
  const MutexLock lock(mutex_);
  report_.lag = lag;
}

void SharedState::nothing_waits() {
  const MutexLock lock(mutex_);
  if (queue_.in_flight() == 0) note_progress();
}

bool SharedState::fall_asleep() {
  const MutexLock lock(mutex_);
  const bool work =
      queue_.in_flight() > 0 || retries_wanted_ || !replays_.empty() || report_.lag.value_or(0) > 0;
  if (work || !standing_.sink_open || held() || standing_.failing()) return false;
  standing_.asleep = true;
  note_state();
  return true;
}

void SharedState::reader_ended() {
  const MutexLock lock(mutex_);
  done(Side::reader) = true;
  changed_.notify_all();
}

SharedState::Work SharedState::wait_for_work(std::optional<std::chrono::milliseconds> at_most,
                                             std::stop_token stop) {
  Work work;
  {
    const MutexLock lock(mutex_);
    const auto ready = [this]() RELAY_REQUIRES(mutex_) {
      return stopping_ || standing_.asleep || (!held() && (!queue_.empty() || retries_wanted_));
    };
    if (at_most) {
      changed_.wait_for(mutex_, stop, *at_most, ready);
    } else {
      changed_.wait(mutex_, stop, ready);
    }
    if (stopping_ || standing_.asleep || stop.stop_requested()) return {Work::Kind::stop, {}};
    if (held()) return work;
    retries_last_ = retries_wanted_ && !(retries_last_ && !queue_.empty());
    if (retries_last_) {
      retries_wanted_ = false;
      work.kind = Work::Kind::dead_letters;
    } else if ((work.batch = queue_.pop())) {
      rejections_.begin_batch();
      work.kind = Work::Kind::batch;
    }
  }
  changed_.notify_all();
  return work;
}

bool SharedState::wait_while_paused(std::stop_token stop) {
  const MutexLock lock(mutex_);
  changed_.wait(mutex_, stop,
                [this]() RELAY_REQUIRES(mutex_) { return stopping_ || !standing_.paused; });
  return !stopping_ && !stop.stop_requested();
}

bool SharedState::halt(const Error& error, std::stop_token stop) {
  const MutexLock lock(mutex_);
  standing_.failure(Side::sender) = error;
  standing_.halted = true;
  note_state();
  changed_.wait(mutex_, stop,
                [this]() RELAY_REQUIRES(mutex_) { return stopping_ || !standing_.halted; });
  standing_.failure(Side::sender).reset();
  note_state();
  return !stopping_ && !stop.stop_requested();
}

bool SharedState::take_retry_request() {
  const MutexLock lock(mutex_);
  return std::exchange(retries_wanted_, false);
}

bool SharedState::append_to_stuck(MessageBatch& batch, bool others_go) {
  {
    const MutexLock lock(mutex_);
    if (!queue_.append_to_stuck(batch, others_go)) return false;
  }
  changed_.notify_all();
  return true;
}

bool SharedState::wait_for_more(const MessageBatch& batch, SteadyClock::time_point until,
                                std::stop_token stop) {
  const MutexLock lock(mutex_);
  const auto before = nudges_;
  changed_.wait_until(mutex_, stop, until, [&]() RELAY_REQUIRES(mutex_) {
    return stopping_ || nudges_ != before || queue_.fits(batch);
  });
  return !stopping_ && !stop.stop_requested();
}

bool SharedState::stopping() const {
  const MutexLock lock(mutex_);
  return stopping_;
}

void SharedState::set_sink_open(bool open) {
  const MutexLock lock(mutex_);
  standing_.sink_open = open;
  // A sink is closed to be opened again: the failure behind that is what changes the state.
  if (open) note_state();
  changed_.notify_all();
}

void SharedState::delivered(bool sink_takes, bool some) {
  {
    const MutexLock lock(mutex_);
    if (some) rejections_.delivered();
    if (!queue_.set_sink_takes(sink_takes)) return;
  }
  changed_.notify_all();
}

void SharedState::dead_letters_delivered() {
  const MutexLock lock(mutex_);
  rejections_.delivered();
}

void SharedState::rejected(std::size_t count, SharedError last) {
  const MutexLock lock(mutex_);
  rejections_.rejected(count, std::move(last));
}

void SharedState::batch_done(std::size_t records) {
  {
    const MutexLock lock(mutex_);
    rejections_.end_batch(std::chrono::system_clock::now());
    queue_.leave(records);
    note_state();
  }
  changed_.notify_all();
}

void SharedState::settled(const Position& position) {
  const MutexLock lock(mutex_);
  report_.position = position;
  note_progress();
}

std::optional<Position> SharedState::position_to_write() const {
  const MutexLock lock(mutex_);
  return standing_.may_commit() ? std::optional(report_.position) : std::nullopt;
}

bool SharedState::falling_asleep() const {
  const MutexLock lock(mutex_);
  return standing_.asleep;
}

void SharedState::wait_for_reader() {
  const MutexLock lock(mutex_);
  changed_.wait(mutex_, [this]() RELAY_REQUIRES(mutex_) { return done_[0]; });
}

void SharedState::sender_ended() {
  const MutexLock lock(mutex_);
  queue_.clear();
  standing_.source_open = false;
  done(Side::sender) = true;
  rests_ = standing_.asleep;
  note_state();
  changed_.notify_all();
}

}  // namespace relay
