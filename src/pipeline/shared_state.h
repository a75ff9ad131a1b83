#pragma once

#include <prometheus/gauge.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <stop_token>

#include "core/deadline.h"
#include "core/message.h"
#include "core/mutex.h"
#include "pipeline/batch_queue.h"
#include "pipeline/rejection_run.h"
#include "pipeline/report.h"
#include "pipeline/spec.h"
#include "pipeline/standing.h"

namespace relay {

/// What the reader, the sender and the owner of a pipeline share, and all that they share: what the
/// owner asked for, the batches between the threads, and how the pipeline does. Nothing here does
/// I/O. Any thread calls what no comment gives to one.
class SharedState {
 public:
  SharedState(std::size_t batch_bytes, prometheus::Gauge& state_metric);

  // Start and end.

  /// The threads are about to start. False: they run, or are to stop.
  bool begin();
  /// A thread could not be started; without it, the other one ends as well.
  void not_started(const Error& error, bool sender_runs);
  void request_stop();
  /// The pipeline ends by itself.
  void end(PipelineEnd reason);
  bool ended() const;
  void wait_ended(Deadline deadline);
  /// The threads have ended because there was nothing to do. Takes no lock.
  bool asleep() const { return rests_.load(); }
  /// The threads have ended, and a replay or a retry of dead letters is requested.
  bool asked_while_asleep() const;
  PipelineReport report() const;

  // What the owner asks for.

  void set_paused(bool paused);
  void add_replay(ReplayRequest request);
  void request_retries();
  void nudge();

  // Both threads.

  /// Waits for the time, or until a nudge. False: the pipeline is to stop.
  bool wait_for(std::chrono::milliseconds time, std::stop_token stop);
  void set_failure(Side side, const Error& error);
  /// True: there was a failure.
  bool clear_failure(Side side);

  // The reader thread.

  enum class Turn { read, not_yet, stop };
  Turn wait_to_read(bool needs_sink, SteadyClock::time_point until, std::stop_token stop);
  std::size_t most_records(std::size_t wanted) const;
  std::optional<ReplayRequest> replay() const;
  void end_replay();
  /// Waits for room. False: the pipeline is to stop.
  bool push(MessageBatch batch, std::stop_token stop);
  void source_opened();
  void set_lag(std::optional<std::int64_t> lag);
  /// Nothing waits in the source: that is progress, unless something is in flight.
  void nothing_waits();
  /// True: there is nothing to do, both threads are to end.
  bool fall_asleep();
  void reader_ended();

  // The sender thread.

  struct Work {
    enum class Kind { stop, nothing, dead_letters, batch };
    Kind kind = Kind::nothing;
    std::optional<MessageBatch> batch;
  };
  /// Waits for the next thing to do: batches and dead letters in turn where both wait. `nothing`:
  /// `at_most` has passed; unset, it waits without end.
  Work wait_for_work(std::optional<std::chrono::milliseconds> at_most, std::stop_token stop);
  /// Between two rounds of a batch. False: the pipeline is to stop, and what was not sent yet is
  /// left to the next owner.
  bool wait_while_paused(std::stop_token stop);
  /// Reports the error and waits until the operator resumes the pipeline. False: it is to stop.
  bool halt(const Error& error, std::stop_token stop);
  bool take_retry_request();
  /// `others_go`: messages of the batch are held back, and others may be sent.
  bool append_to_stuck(MessageBatch& batch, bool others_go);
  /// Waits until then, or until a batch waits that may be delivered with this one, or until a
  /// nudge. False: the pipeline is to stop.
  bool wait_for_more(const MessageBatch& batch, SteadyClock::time_point until,
                     std::stop_token stop);
  bool stopping() const;
  void set_sink_open(bool open);
  /// A delivery has ended: whether the sink takes messages, and whether it settled any.
  void delivered(bool sink_takes, bool some);
  /// Dead letters were delivered.
  void dead_letters_delivered();
  void rejected(std::size_t count, SharedError last);
  void batch_done(std::size_t records);
  void settled(const Position& position);
  /// Empty if this instance may not commit any more.
  std::optional<Position> position_to_write() const;
  /// True: the threads end because there is nothing to do.
  bool falling_asleep() const;
  void wait_for_reader();
  void sender_ended();

 private:
  bool& done(Side side) RELAY_REQUIRES(mutex_) { return done_[static_cast<std::size_t>(side)]; }
  bool held() const RELAY_REQUIRES(mutex_) { return standing_.paused || standing_.halted; }
  void note_state() RELAY_REQUIRES(mutex_);
  void note_progress() RELAY_REQUIRES(mutex_);

  mutable Mutex mutex_;
  Condition changed_;
  prometheus::Gauge& state_metric_;
  std::atomic<bool> rests_ = false;  // written with mutex_ held
  bool stopping_ RELAY_GUARDED_BY(mutex_) = false;
  std::array<bool, 2> done_ RELAY_GUARDED_BY(mutex_) = {true, true};  // by Side
  Standing standing_ RELAY_GUARDED_BY(mutex_);
  BatchQueue queue_ RELAY_GUARDED_BY(mutex_);
  std::deque<ReplayRequest> replays_ RELAY_GUARDED_BY(mutex_);
  bool retries_wanted_ RELAY_GUARDED_BY(mutex_) = true;  // dead letters may wait to be sent again
  bool retries_last_ RELAY_GUARDED_BY(mutex_) = false;   // wait_for_work gave dead letters last
  std::uint64_t nudges_ RELAY_GUARDED_BY(mutex_) = 0;
  RejectionRun rejections_ RELAY_GUARDED_BY(mutex_);
  PipelineReport report_ RELAY_GUARDED_BY(mutex_);  // the parts that no member above holds
};

}  // namespace relay
