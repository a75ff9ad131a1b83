#include "pipeline/pipeline.h"

#include <array>
#include <random>

#include "core/log.h"
#include "core/shortage.h"

namespace relay {

using std::chrono::milliseconds;

namespace {

/// How soon a misconfigured pipeline looks again whether the cause, outside, has gone.
constexpr milliseconds kMisconfiguredMin{1000};
constexpr milliseconds kMisconfiguredMax{30000};

/// The longest wait before a server that cannot be reached is asked again, also where `retry_max`
/// is more: what was away for long is used again soon after its return.
constexpr milliseconds kReconnectMax{2000};

/// Before threads that could not be started are tried again.
constexpr milliseconds kStartPause{1000};

/// Asking the machine for randomness takes longer than delivering a small batch.
std::uint64_t next_seed() {
  thread_local std::mt19937_64 seeds(std::random_device{}());
  return seeds();
}

}  // namespace

std::string_view to_string(PipelineState state) {
  static constexpr std::array<std::string_view, 8> kNames = {
      "starting", "idle", "running", "retrying", "paused", "misconfigured", "stopped", "standby"};
  return kNames[static_cast<std::size_t>(state)];
}

Pipeline::Pipeline(PipelineSpec spec, std::unique_ptr<Source> source,
                   std::unique_ptr<envelope::Encoder> encoder, std::unique_ptr<Sink> sink,
                   std::unique_ptr<DeadLetterQueue> dead_letters,
                   std::shared_ptr<PipelineMetrics> metrics, PipelineHooks hooks)
    : spec_(std::move(spec)),
      source_(std::move(source)),
      encoder_(std::move(encoder)),
      sink_(std::move(sink)),
      dead_letters_(std::move(dead_letters)),
      metrics_(std::move(metrics)),
      hooks_(std::move(hooks)),
      queue_(spec_.batch_bytes),
      since_(std::chrono::system_clock::now()),
      last_progress_(since_) {
  sink_->send_under(*hooks_.lease);
  set_lag(std::nullopt);
}

Pipeline::~Pipeline() {
  request_stop();
  join(Deadline::after(milliseconds(0)));
}

void Pipeline::start() {
  const std::lock_guard one_at_a_time(life_);
  {
    const std::lock_guard lock(mutex_);
    const bool alive = !reader_done_ || !sender_done_;
    if (stopping_ || alive) return;
  }
  // The threads of a former life have ended: they fell asleep.
  if (reader_.joinable()) reader_.join();
  if (sender_.joinable()) sender_.join();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    reader_done_ = sender_done_ = false;
    asleep_ = rests_ = false;
    start_due_.reset();
    set_progress();
    note_state_locked();
  }
  try {
    sender_ = std::jthread([this](std::stop_token stop) { run_sender(stop); });
    reader_ = std::jthread([this](std::stop_token stop) { run_reader(stop); });
  } catch (const std::exception& exception) {
    not_started(shortage::error_of(exception, "starting the pipeline"));
  }
}

/// Without one of the threads the other one ends as well. `attend` tries again.
void Pipeline::not_started(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    reader_done_ = true;
    if (!sender_.joinable()) sender_done_ = true;
    start_due_ = SteadyClock::now() + kStartPause;
    trouble_[static_cast<int>(Side::reader)] = error;
    note_state_locked();
  }
  sender_.request_stop();
  changed_.notify_all();
  log::failure(kSourceTrouble, spec_.name, error);
}

void Pipeline::wake() {
  if (asleep()) start();
}

void Pipeline::attend() {
  {
    const std::lock_guard lock(mutex_);
    const bool due = start_due_ && SteadyClock::now() >= *start_due_;
    if (!due && (!rests_ || (!retry_letters_ && replays_.empty()))) return;
  }
  start();
}

void Pipeline::request_stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  // The reader gives up at once; the sender finishes what is in flight (see join).
  const std::lock_guard no_start(life_);
  reader_.request_stop();
  changed_.notify_all();
}

void Pipeline::give_up() {
  const std::lock_guard no_start(life_);
  sender_.request_stop();
}

void Pipeline::join(Deadline drain) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, drain.at(), [this] { return reader_done_ && sender_done_; });
  }
  give_up();
  if (reader_.joinable()) reader_.join();
  if (sender_.joinable()) sender_.join();
}

void Pipeline::set_paused(bool paused) {
  {
    const std::lock_guard lock(mutex_);
    if (paused_ == paused && (paused || !halted_)) return;
    paused_ = paused;
    if (!paused) halted_ = false;
    set_progress();
    note_state_locked();
  }
  changed_.notify_all();
}

void Pipeline::replay(ReplayRequest request) {
  {
    const std::lock_guard lock(mutex_);
    replays_.push_back(std::move(request));
  }
  changed_.notify_all();
  attend();
}

void Pipeline::dead_letters_changed() {
  {
    const std::lock_guard lock(mutex_);
    retry_letters_ = true;
  }
  changed_.notify_all();
  attend();
}

void Pipeline::nudge() {
  {
    const std::lock_guard lock(mutex_);
    ++nudges_;
  }
  changed_.notify_all();
}

bool Pipeline::ended() const {
  const std::lock_guard lock(mutex_);
  return reader_done_ && sender_done_;
}

PipelineReport Pipeline::report() const {
  const std::lock_guard lock(mutex_);
  PipelineReport report;
  report.state = state_locked();
  for (const auto& trouble : trouble_) {
    if (trouble) report.error = trouble;
  }
  if (ended_by_) report.error = ended_by_;
  report.since = since_;
  report.last_progress = last_progress_;
  report.position = position_;
  report.lag = lag_;
  report.has_work = in_flight_ > 0 || (lag_ && *lag_ > 0);
  report.asleep = asleep_;
  report.fenced = fenced_;
  report.ended_by = ended_by_;
  report.rejections = rejections_.report();
  return report;
}

PipelineState Pipeline::state_locked() const {
  if (fenced_) return PipelineState::standby;
  if (halted_) return PipelineState::stopped;
  if (ended_by_) return PipelineState::retrying;
  for (const auto& trouble : trouble_) {
    if (trouble && trouble->error_class == ErrorClass::misconfigured) {
      return PipelineState::misconfigured;
    }
  }
  if (trouble_[0] || trouble_[1]) return PipelineState::retrying;
  if (paused_) return PipelineState::paused;
  if (asleep_) return PipelineState::idle;
  if (!source_open_ || !sink_open_) return PipelineState::starting;
  return in_flight_ > 0 ? PipelineState::running : PipelineState::idle;
}

void Pipeline::note_state_locked() {
  const PipelineState now = state_locked();
  if (now == state_) return;
  const auto settled = [](PipelineState state) {
    return state == PipelineState::idle || state == PipelineState::running;
  };
  // Idle and running alternate with each batch: that is one state to whoever asks "since when".
  if (!(settled(now) && settled(state_))) since_ = std::chrono::system_clock::now();
  state_ = now;
  metrics_->state.Set(static_cast<double>(now));
}

void Pipeline::set_progress() {
  last_progress_ = std::chrono::system_clock::now();
}

Backoff Pipeline::backoff() const {
  return Backoff(spec_.retry_min, spec_.retry_max, next_seed());
}

Backoff Pipeline::reconnect_backoff() const {
  return Backoff(spec_.retry_min, std::min(spec_.retry_max, kReconnectMax), next_seed());
}

bool Pipeline::wait_for(milliseconds time, std::stop_token stop) {
  std::unique_lock lock(mutex_);
  const auto before = nudges_;
  changed_.wait_for(lock, stop, time, [&] { return stopping_ || nudges_ != before; });
  return !stopping_ && !stop.stop_requested();
}

bool Pipeline::in_trouble(Side side, std::string_view event, const Error& met, Backoff& backoff,
                          std::stop_token stop) {
  if (met.error_class == ErrorClass::cancelled || stop.stop_requested()) return false;
  if (met.error_class == ErrorClass::fenced) {
    enter_fenced(met);
    return false;
  }
  const Error error = shortage::explained(met);
  {
    const std::lock_guard lock(mutex_);
    trouble_[static_cast<int>(side)] = error;
    note_state_locked();
  }
  log::failure(event, spec_.name, error);
  milliseconds delay = backoff.next(error.retry_after);
  if (error.error_class == ErrorClass::misconfigured) {
    delay = std::min(kMisconfiguredMax, kMisconfiguredMin * (1 << std::min(backoff.attempts(), 5)));
  } else if (error.code == kUnreachable) {
    delay = std::min(delay, kReconnectMax);
  }
  return wait_for(delay, stop);
}

void Pipeline::clear_trouble(Side side, std::string_view event) {
  bool had;
  {
    const std::lock_guard lock(mutex_);
    had = trouble_[static_cast<int>(side)].has_value();
    trouble_[static_cast<int>(side)].reset();
    // What it says first ends the trouble of the pipeline that was here before it, too.
    had = had || !std::exchange(well_[static_cast<int>(side)], true);
    note_state_locked();
  }
  if (had) log::recovered(event, spec_.name);
}

void Pipeline::enter_fenced(const Error& error) {
  log::warn(error.code, spec_.name, "{}", error.message);
  {
    const std::lock_guard lock(mutex_);
    fenced_ = true;
    stopping_ = true;
    note_state_locked();
  }
  changed_.notify_all();
}

/// What was in flight is lost to this pipeline, not to its source: the next one reads it again.
void Pipeline::end_by(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    ended_by_ = error;
    stopping_ = true;
  }
  changed_.notify_all();
}

}  // namespace relay
