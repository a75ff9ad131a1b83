#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "connector/sink.h"
#include "connector/source.h"
#include "core/dead_letter_queue.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/mutex.h"
#include "envelope/encoder.h"
#include "pipeline/metrics.h"
#include "pipeline/reader.h"
#include "pipeline/report.h"
#include "pipeline/sender.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// Joins a source to a sink: a reader thread reads and encodes the next batch while a sender thread
/// delivers this one and settles the last. Retries for ever what may succeed, sets aside what
/// cannot, and moves the position only behind what is settled. `request_stop`, `join` and the
/// destructor are for the owner's thread; any thread may call the rest.
class Pipeline {
 public:
  Pipeline(PipelineSpec spec, std::unique_ptr<Source> source,
           std::unique_ptr<envelope::Encoder> encoder, std::unique_ptr<Sink> sink,
           std::unique_ptr<DeadLetterQueue> dead_letters, std::shared_ptr<PipelineMetrics> metrics,
           PipelineHooks hooks);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// Starts the threads where none run.
  void start();
  /// New work was announced: starts the threads of a pipeline that sleeps. Does not wait: one that
  /// is only about to sleep is left alone, and must be woken again.
  void wake();
  /// Wakes a sleeping pipeline if a replay or a retry of dead letters was requested while it fell
  /// asleep, and starts one whose threads could not be started.
  void attend();
  /// Asks for the end: reading stops, the batch in flight is finished, the rest is abandoned.
  void request_stop();
  /// After `request_stop`: abandons what is in flight (it will be sent again).
  void give_up();
  /// True when no thread runs any more after `request_stop`, or none was started.
  bool ended() const { return shared_.ended(); }
  /// Waits for the end; what is not finished by the deadline is given up (it will be sent again).
  void join(Deadline drain);

  void set_paused(bool paused) { shared_.set_paused(paused); }
  void replay(ReplayRequest request);
  /// Dead letters wait to be sent again, or were resolved.
  void dead_letters_changed();

  /// What it waits for may have changed: a waiting retry is made now.
  void nudge() { shared_.nudge(); }

  PipelineReport report() const;
  /// The threads have ended because there was nothing to do.
  bool asleep() const { return shared_.asleep(); }
  const std::string& name() const { return spec_.name; }
  Source& source() { return *source_; }

 private:
  void not_started(const Error& error) RELAY_REQUIRES(threads_mutex_);

  const PipelineSpec spec_;
  const std::unique_ptr<Source> source_;
  const Sink& sink_;  // the sender has it
  const std::shared_ptr<PipelineMetrics> metrics_;
  SharedState shared_;
  Reader reader_;
  Sender sender_;

  Mutex threads_mutex_;  // before that of shared_
  std::optional<SteadyClock::time_point> start_due_ RELAY_GUARDED_BY(threads_mutex_);
  std::jthread reader_thread_ RELAY_GUARDED_BY(threads_mutex_);
  std::jthread sender_thread_ RELAY_GUARDED_BY(threads_mutex_);
};

}  // namespace relay
