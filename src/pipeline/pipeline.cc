#include "pipeline/pipeline.h"

#include <chrono>
#include <exception>
#include <stop_token>
#include <utility>

#include "core/log.h"
#include "core/shortage.h"
#include "pipeline/recovery.h"

namespace relay {

using std::chrono::milliseconds;

namespace {

/// Before threads that could not be started are tried again.
constexpr milliseconds kStartPause{1000};

}  // namespace

Pipeline::Pipeline(PipelineSpec spec, std::unique_ptr<Source> source,
                   std::unique_ptr<envelope::Encoder> encoder, std::unique_ptr<Sink> sink,
                   std::unique_ptr<DeadLetterQueue> dead_letters,
                   std::shared_ptr<PipelineMetrics> metrics, PipelineHooks hooks)
    : spec_(std::move(spec)),
      source_(std::move(source)),
      sink_(*sink),
      metrics_(std::move(metrics)),
      shared_(spec_.batch_bytes, metrics_->state),
      reader_(spec_, hooks, *source_, std::move(encoder), *metrics_, shared_),
      sender_(spec_, *hooks.lease, *source_, std::move(sink), std::move(dead_letters), *metrics_,
              shared_) {}

Pipeline::~Pipeline() {
  request_stop();
  join(Deadline::after(milliseconds(0)));
}

void Pipeline::start() {
  const MutexLock one_at_a_time(threads_mutex_);
  if (!shared_.begin()) return;
  // The threads of a former life have ended: they fell asleep.
  if (reader_thread_.joinable()) reader_thread_.join();
  if (sender_thread_.joinable()) sender_thread_.join();
  start_due_.reset();
  try {
    sender_thread_ = std::jthread([this](std::stop_token stop) { sender_.run(stop); });
    reader_thread_ = std::jthread([this](std::stop_token stop) { reader_.run(stop); });
  } catch (const std::exception& exception) {
    not_started(shortage::error_of(exception, "starting the pipeline"));
  }
}

/// Without one of the threads the other one ends as well. `attend` tries again.
void Pipeline::not_started(const Error& error) {
  start_due_ = SteadyClock::now() + kStartPause;
  shared_.not_started(error, sender_thread_.joinable());
  sender_thread_.request_stop();
  log::failure(failure_event(Side::reader), spec_.name, error);
}

void Pipeline::wake() {
  if (asleep()) start();
}

void Pipeline::attend() {
  bool due = shared_.asked_while_asleep();
  if (!due) {
    const MutexLock lock(threads_mutex_);
    due = start_due_ && SteadyClock::now() >= *start_due_;
  }
  if (due) start();
}

void Pipeline::request_stop() {
  shared_.request_stop();
  // The reader gives up at once; the sender finishes what is in flight (see join).
  const MutexLock no_start(threads_mutex_);
  reader_thread_.request_stop();
}

void Pipeline::give_up() {
  const MutexLock no_start(threads_mutex_);
  sender_thread_.request_stop();
}

void Pipeline::join(Deadline drain) {
  shared_.wait_ended(drain);
  give_up();
  std::jthread reader;
  std::jthread sender;
  {
    const MutexLock no_start(threads_mutex_);
    reader.swap(reader_thread_);
    sender.swap(sender_thread_);
  }
  // Not with the mutex held: another thread that calls `attend` does not wait for a delivery.
  if (reader.joinable()) reader.join();
  if (sender.joinable()) sender.join();
}

PipelineReport Pipeline::report() const {
  PipelineReport report = shared_.report();
  report.source = source_->report();
  report.sink = sink_.report();
  return report;
}

void Pipeline::replay(ReplayRequest request) {
  shared_.add_replay(request);
  attend();
}

void Pipeline::dead_letters_changed() {
  shared_.request_retries();
  attend();
}

}  // namespace relay
