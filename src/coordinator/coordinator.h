#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "config/pipeline_config.h"
#include "config/settings.h"
#include "connector/registry.h"
#include "coordinator/assembly.h"
#include "coordinator/cause_rules.h"
#include "coordinator/causes.h"
#include "coordinator/housekeeper.h"
#include "coordinator/lease_clock.h"
#include "coordinator/lease_session.h"
#include "coordinator/status.h"
#include "coordinator/sweep.h"
#include "postgres/pool.h"

namespace relay::coordinator {

/// Reads the configuration file anew; none: there is no file.
using FileLoader = std::function<Result<std::vector<config::PipelineConfig>>()>;

/// Owns pipelines and keeps them as the configuration wants them: takes and hands over their
/// leases, starts, stops and remakes exactly those that changed, and writes down how they
/// do. One control thread; public functions from any other.
class Coordinator {
 public:
  Coordinator(config::Settings settings, const Registry& registry, Metrics& metrics,
              FileLoader load_file);
  ~Coordinator();

  void start();
  /// Ends all pipelines within the drain timeout (less, when `abort` is called), commits, releases.
  void stop();
  /// Gives up what is still in flight: it will be sent again.
  void abort();
  /// Reads the configuration file again (SIGHUP).
  void reload();

  /// How things stand. Does not wait for the control thread: where that keeps the state to itself,
  /// it is how things stood last.
  Snapshot snapshot() const;
  postgres::Pool& pool() { return pool_; }

 private:
  /// A pipeline of the configuration, owned or not.
  struct Entry {
    config::PipelineConfig config;
    bool owned = false;
    bool removed = false;  ///< not in the configuration any more
    bool release = false;  ///< to be handed over when its pipeline has ended
    std::string watched;   ///< the sequence that the sweep watches for it
    std::optional<OutboxProblem> outbox_problem;
    DeadLetterCount dead_letters;
    /// Of all pipelines of this name that ran here.
    std::shared_ptr<SettledRows> settled = std::make_shared<SettledRows>();
    std::int64_t counted_gone = 0;  ///< of `settled`, what the metric has counted
    Control control;
    std::optional<Error> problem;  ///< why there is no pipeline although we own it
    std::chrono::system_clock::time_point problem_since{};
    SteadyClock::time_point try_again{};
    Assembled assembled;
    /// Ended with the lease session, and kept until it is known who owns it now: its source answers
    /// meanwhile that nothing is taken in.
    std::unique_ptr<Pipeline> turning_away;
    bool stopping = false;
    Deadline drain = Deadline::never();
    std::string written_status;  ///< what was last written to the database
  };
  using Table = std::map<std::string, std::unique_ptr<Entry>>;

  void run(std::stop_token stop);
  Result<void> session(std::stop_token stop);
  Result<void> tick(std::stop_token stop);
  Result<Renewal> renew(std::stop_token stop);
  Result<void> beat(std::stop_token stop);
  Result<void> take_duty(std::stop_token stop);
  Result<void> refresh_catalog(std::stop_token stop);
  Result<void> refresh_controls(std::stop_token stop);
  Result<void> refresh_numbers(std::stop_token stop);
  Result<void> refresh_blockers(std::stop_token stop);
  Result<void> refresh_outboxes(std::stop_token stop);
  void look_for_gone_rows(std::stop_token stop);
  void look_for_causes();
  Result<void> balance(std::stop_token stop);
  Result<void> finish_replays(std::stop_token stop);
  Result<void> write_statuses(std::stop_token stop);
  Result<void> settle_stopped(std::stop_token stop);
  void apply(std::vector<config::PipelineConfig> wanted);
  std::vector<config::PipelineConfig> merge(std::vector<config::PipelineConfig> from_sql) const;
  void make(Entry& entry);
  void begin_stop(Entry& entry);
  void run_pipelines();
  bool starting_is_crowded() const;
  void stop_all(Deadline drain);
  void lose_everything(const Error& error);
  PipelineHooks hooks();
  PipelineFacts facts_of(const Entry& entry) const;
  PipelineStatus status_of(const Entry& entry) const;
  Snapshot current_snapshot() const;
  Result<void> wait_for_change(std::stop_token stop);
  std::vector<Assembled> end(std::vector<Assembled> pipelines);
  void poke();
  void note_round() { last_round_ = SteadyClock::now().time_since_epoch().count(); }

  const config::Settings settings_;
  const Registry& registry_;
  Metrics& metrics_;
  const FileLoader load_file_;
  const std::string worker_id_;
  const SteadyClock::time_point started_;
  postgres::Pool pool_;
  Workshop workshop_;
  std::unique_ptr<LeaseSession> session_;
  std::unique_ptr<Sweep> sweep_;
  std::unique_ptr<Housekeeper> housekeeper_;

  // Of the control thread alone.
  std::string catalog_version_;
  std::vector<config::PipelineConfig> from_sql_;
  std::vector<config::PipelineConfig> from_file_;
  std::size_t live_instances_ = 1;
  bool leader_ = false;
  bool blocked_ = false;           ///< the last lease session could not be opened
  bool on_duty_ = false;           ///< holds the lease of the housekeeping
  std::set<std::string> asked_;    ///< pipelines of which somebody asked something
  std::set<std::string> resumed_;  ///< those that an operator resumed
  SteadyClock::time_point next_beat_{};
  SteadyClock::time_point next_look_{};
  SteadyClock::time_point next_numbers_{};
  SteadyClock::time_point next_status_{};
  SteadyClock::time_point next_causes_{};
  std::vector<StreamFailure> stream_failures_;
  std::vector<OutboxProblem> unread_problems_;  ///< of outboxes that no pipeline reads
  std::set<std::string> outboxes_told_;         ///< in the metric

  LeaseClock lease_;

  std::atomic<SteadyClock::rep> last_round_;  ///< when the control thread last did something

  mutable std::mutex last_snapshot_mutex_;
  mutable Snapshot last_snapshot_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Table table_;  // changed by the control thread only, under mutex_
  bool reload_ = false;
  bool catalog_changed_ = true;
  bool controls_changed_ = true;
  bool database_connected_ = false;
  bool catalog_read_ = false;
  bool stopping_ = false;
  bool aborted_ = false;
  std::optional<Error> database_error_;
  std::vector<Blocker> blockers_;
  Causes causes_;

  // What the hooks touch: apart from mutex_, which is held while pipelines are joined.
  std::atomic<bool> poked_{false};
  std::mutex finished_mutex_;
  std::deque<std::pair<std::int64_t, std::string>> finished_replays_;

  std::jthread thread_;
};

}  // namespace relay::coordinator
