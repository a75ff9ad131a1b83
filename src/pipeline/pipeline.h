#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "connector/sink.h"
#include "connector/source.h"
#include "core/backoff.h"
#include "core/dead_letter_queue.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"
#include "envelope/encoder.h"
#include "pipeline/batch_queue.h"
#include "pipeline/metrics.h"
#include "pipeline/pace.h"
#include "pipeline/rejection_run.h"
#include "pipeline/seal.h"
#include "pipeline/settlement.h"

namespace relay {

enum class PipelineState {
  starting,
  idle,           ///< nothing to do
  running,        ///< delivering
  retrying,       ///< a transient error: it is tried again, for ever
  paused,         ///< somebody paused it
  misconfigured,  ///< somebody has to change something; looked at again every 30 s
  stopped,        ///< `on_reject = stop` met a rejected message
  standby,        ///< another instance owns it
};
std::string_view to_string(PipelineState);

enum class OnReject { dead_letter, park_key, stop, skip };

/// What makes a pipeline what it is.
struct PipelineSpec {
  std::string name;
  ReadLimits limits;
  /// The most bytes that are delivered together; half as many more wait for that.
  std::size_t batch_bytes = 8u << 20;
  std::chrono::milliseconds retry_min{100};
  std::chrono::milliseconds retry_max{30000};
  OnReject on_reject = OnReject::dead_letter;
  double rate_limit = 0;  ///< messages a second; 0: none
  /// The source announces new work from outside, so that the threads may end while there is none.
  bool may_sleep = false;
  std::chrono::milliseconds sleep_after{60000};
  Seal seal;  ///< keeps the configuration's secrets out of dead letters
};

/// A deliberate second delivery of a range of ids.
struct ReplayRequest {
  std::int64_t id = 0;
  std::int64_t from = 0;
  std::int64_t to = 0;
  int number = 1;  ///< k of the ":r<k>" behind each message id
};

/// What a pipeline asks of, and tells, the house around it. Called from its threads; must not
/// block.
struct PipelineHooks {
  /// While it does not hold, this instance may not be the owner any more: nothing is delivered, and
  /// the sink's connections end with it.
  Lease* lease = &Lease::endless();
  std::function<void(const ReplayRequest&, const std::optional<Error>&)> replay_finished =
      [](const ReplayRequest&, const std::optional<Error>&) {};
  /// The source was opened: what it knows of itself only then can be asked.
  std::function<void()> source_opened = [] {};
};

/// A snapshot of how a pipeline does.
struct PipelineReport {
  PipelineState state = PipelineState::starting;
  std::optional<Error> error;
  std::chrono::system_clock::time_point since{};          ///< in this state
  std::chrono::system_clock::time_point last_progress{};  ///< something settled, or nothing to do
  Position position;
  std::optional<std::int64_t> lag;
  bool has_work = false;            ///< records are read and not settled, or known to wait
  bool asleep = false;              ///< no threads; `wake` starts them
  bool fenced = false;              ///< it ended because this instance may commit nothing
  std::optional<Error> ended_by;    ///< a failure that it cannot go on from: make it anew, later
  RejectionRun::Report rejections;  ///< none delivered since they began
};

/// Joins a source to a sink: a reader thread reads and encodes the next batch while a sender thread
/// delivers this one and settles the last. Retries for ever what may succeed, sets aside what
/// cannot, and moves the position only behind what is settled. `request_stop`, `join` and the
/// destructor: the owner's thread; all else any.
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
  /// is only about to sleep is left alone, and is to be woken again.
  void wake();
  /// Wakes a sleeping pipeline for which something was asked while it fell asleep, and starts one
  /// whose threads could not be started.
  void attend();
  /// Asks for the end: reading stops, the batch in flight is finished, the rest is abandoned.
  void request_stop();
  /// After `request_stop`: abandons what is in flight (it will be sent again).
  void give_up();
  /// True when no thread runs any more after `request_stop`, or none was started.
  bool ended() const;
  /// Waits for the end; what is not finished by the deadline is given up (it will be sent again).
  void join(Deadline drain);

  void set_paused(bool paused);
  void replay(ReplayRequest request);
  /// Dead letters wait to be sent again, or were resolved.
  void dead_letters_changed();

  /// Whatever it waits for may have changed: a waiting retry is made now.
  void nudge();

  PipelineReport report() const;
  /// The threads have ended because there was nothing to do.
  bool asleep() const { return rests_.load(); }
  const std::string& name() const { return spec_.name; }
  Source& source() { return *source_; }

 private:
  enum class Side { reader, sender };
  static constexpr std::chrono::milliseconds kDeliveryTimeout{30000};
  static constexpr std::string_view kSinkTrouble = "sink_failed";
  static constexpr std::string_view kSourceTrouble = "source_failed";
  /// Seconds of the rate limit that go out at once.
  static constexpr double kRateSlice = 0.05;

  void run_reader(std::stop_token stop);
  void run_sender(std::stop_token stop);
  void read_loop(std::stop_token stop);
  void send_loop(std::stop_token stop);

  bool open_source(std::stop_token stop);
  bool open_sink(std::stop_token stop);
  bool wait_for_lease(std::stop_token stop);
  bool read_replays(std::stop_token stop);
  bool wait_for_room(std::stop_token stop);
  void tend_source(std::stop_token stop);
  void note_lag();
  void note_nothing_came();
  void set_lag(std::optional<std::int64_t> lag);
  bool has_room_locked() const;
  ReadLimits read_limits();
  bool enqueue(MessageBatch batch, std::stop_token stop);
  bool fall_asleep();

  void deliver_batch(MessageBatch batch, std::stop_token stop);
  bool may_go_on(std::stop_token stop);
  bool deliver_round(const MessageBatch& batch, Settlement& settlement, Backoff& pause,
                     std::stop_token stop);
  std::size_t sent_together(const MessageBatch& batch, const Settlement& settlement) const;
  std::span<const Message> sendable(const MessageBatch& batch, const Settlement& settlement,
                                    std::vector<Message>& copies, std::stop_token stop);
  bool halt(const Error& error, std::stop_token stop);
  bool recover(const Error& error, bool progressed, Backoff& pause, std::stop_token stop);
  void note_sink_takes(bool takes);
  bool take_more(MessageBatch& batch);
  void note_sink_answers();
  void note_rejections();
  void close_sink();
  bool acknowledge(const MessageBatch& batch, Settlement& settlement, std::stop_token stop);
  bool insist(const std::function<Result<void>()>& operation, std::stop_token stop);
  bool commit(const Position& position, std::span<const DeadLetter> letters, std::stop_token stop);
  void write_position_due(std::stop_token stop);
  void flush_position();
  void park(const MessageBatch& batch, Settlement& settlement);
  bool take_word_of_retries();
  void retry_dead_letters(std::stop_token stop);
  Result<bool> retry_some(std::stop_token stop);
  Result<std::vector<DeadLetter>> take_retries();
  Result<bool> settle_retries(std::span<const DeadLetter> letters,
                              std::span<const Outcome> outcomes);
  Result<void> refresh_parked();
  std::size_t allowance(std::size_t wanted, std::stop_token stop);

  /// Notes the trouble of one side and waits before the next try; false: a stop was asked for.
  bool in_trouble(Side side, std::string_view event, const Error& error, Backoff& backoff,
                  std::stop_token stop);
  void clear_trouble(Side side, std::string_view event);
  void enter_fenced(const Error& error);
  void end_by(const Error& error);
  void not_started(const Error& error);
  bool wait_for(std::chrono::milliseconds time, std::stop_token stop);
  void set_progress();
  PipelineState state_locked() const;
  void note_state_locked();
  Backoff backoff() const;
  Backoff reconnect_backoff() const;

  const PipelineSpec spec_;
  const std::unique_ptr<Source> source_;
  const std::unique_ptr<envelope::Encoder> encoder_;
  const std::unique_ptr<Sink> sink_;
  const std::unique_ptr<DeadLetterQueue> dead_letters_;
  const std::shared_ptr<PipelineMetrics> metrics_;
  const PipelineHooks hooks_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  BatchQueue queue_;  // guarded by mutex_, as is all down to `threads`
  bool stopping_ = false;
  bool paused_ = false;
  bool halted_ = false;  // `on_reject = stop` met a rejected message
  bool fenced_ = false;
  std::optional<Error> ended_by_;
  std::optional<SteadyClock::time_point> start_due_;  // no thread could be started
  bool reader_done_ = true;
  bool sender_done_ = true;
  bool asleep_ = false;              // nothing to do: the threads are to end
  std::atomic<bool> rests_ = false;  // and have ended; written under mutex_
  std::uint64_t nudges_ = 0;
  bool source_open_ = false;
  bool sink_open_ = false;
  bool sink_takes_ = false;          // it has settled something since it was last stuck
  bool retry_letters_ = true;        // look for dead letters to send again
  std::size_t in_flight_ = 0;        // records that are read and not settled
  std::optional<Error> trouble_[2];  // by Side
  bool well_[2] = {false, false};    // by Side: once it worked
  std::deque<ReplayRequest> replays_;
  Position position_;
  std::optional<std::int64_t> lag_;
  RejectionRun rejections_;
  PipelineState state_ = PipelineState::starting;
  std::chrono::system_clock::time_point since_;
  std::chrono::system_clock::time_point last_progress_;

  // Of the reader thread alone.
  SteadyClock::time_point lag_due_{};
  SteadyClock::time_point tend_due_{};
  bool read_failed_ = false;  // by an exception: only what is read next shows it to be gone

  // Of the sender thread alone.
  bool position_due_ = false;
  std::set<std::string> parked_;
  Pace pace_;
  SteadyClock::time_point next_send_{};
  bool delivery_failed_ = false;  // and none succeeded since
  std::size_t delivered_ = 0;     // messages of the batch that is worked on
  std::size_t rejected_ = 0;      // and the error of the last one
  SharedError rejection_;

  std::mutex life_;  // one `start` at a time
  std::jthread reader_;
  std::jthread sender_;
};

}  // namespace relay
