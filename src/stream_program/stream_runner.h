#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "connector/registry.h"
#include "coordinator/assembly.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/mutex.h"
#include "ownership/membership.h"
#include "pipeline/metrics.h"
#include "pipeline/pipeline.h"
#include "postgres/pool.h"
#include "status/causes.h"
#include "status/instance.h"
#include "status/status.h"
#include "stream_program/configuration.h"
#include "stream_program/stream_watch.h"

namespace relay::stream_program {

/// Delivers one stream wherever this process owns it: installs the database side, takes part in the
/// stream through a lease session, runs the pipeline while it is the owner, and stands by
/// otherwise. One control thread; when the lease session is lost, it ends the pipeline and begins
/// anew. The public functions may be called from any other thread.
class StreamRunner {
 public:
  StreamRunner(StreamConfig config, const Settings& settings, const Registry& registry,
               Metrics& metrics, const std::string& worker_id);
  ~StreamRunner();

  void start();
  /// Asks for the end; `stop` also waits for it, within the drain timeout.
  void request_stop() { thread_.request_stop(); }
  void stop();

  struct Report {
    bool connected = false;  ///< to the database
    bool installed = false;  ///< the database side was, once since the start
    std::optional<Error> error;
    status::PipelineStatus pipeline;
    std::chrono::seconds silent{0};  ///< since the control thread was last at work
  };
  Report report() const;

  /// Of this stream.
  status::DeadLetters dead_letters() const;

  /// Of its pipeline.
  const std::string& name() const { return config_.pipeline.name; }
  /// Whether it was made with this configuration.
  bool runs(const StreamConfig& stream) const;

 private:
  void run(std::stop_token stop);
  Result<void> session(std::stop_token stop);
  Result<void> prepare(std::stop_token stop);
  Result<void> round(std::stop_token stop);
  Result<void> take(std::stop_token stop);
  Result<void> go_on_elsewhere(std::stop_token stop);
  Result<void> make_pipeline();
  Result<void> attend();
  Result<void> give_back();
  void look_for_causes();
  PipelineReport pipeline_report(const StreamFindings& found) const RELAY_REQUIRES(mutex_);
  Result<void> look_at_dead_letters(std::stop_token stop);
  void end_pipeline(Deadline drain);
  void note(bool connected, std::optional<Error> error);

  const StreamConfig config_;
  const std::string name_;    ///< the stream's id
  const std::string source_;  ///< the application name of the source's sessions
  const std::chrono::milliseconds drain_timeout_;
  const OtherSystem other_system_;
  const std::shared_ptr<postgres::Pool> pool_;
  const coordinator::Workshop workshop_;
  ownership::Membership membership_;
  std::atomic<SteadyClock::rep> last_round_{};

  // Of the control thread.
  SteadyClock::time_point make_due_{};
  SteadyClock::time_point look_due_{};
  SteadyClock::time_point letters_due_{};
  std::int64_t dead_letters_ = 0;

  mutable Mutex mutex_;
  coordinator::Assembled assembled_ RELAY_GUARDED_BY(mutex_);
  status::Causes causes_ RELAY_GUARDED_BY(mutex_);
  std::optional<Error> problem_ RELAY_GUARDED_BY(mutex_);  ///< why there is no pipeline
  std::optional<Error> error_ RELAY_GUARDED_BY(mutex_);    ///< of the lease session
  bool connected_ RELAY_GUARDED_BY(mutex_) = false;
  bool installed_ RELAY_GUARDED_BY(mutex_) = false;
  bool owned_ RELAY_GUARDED_BY(mutex_) = false;
  std::unique_ptr<StreamWatch> watch_ RELAY_GUARDED_BY(mutex_);  ///< while there is a pipeline

  std::jthread thread_;
};

}  // namespace relay::stream_program
