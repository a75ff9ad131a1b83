#include "stream_program/daemon.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/host_name.h"
#include "core/log.h"
#include "core/uuid.h"

namespace relay::stream_program {

Daemon::Daemon(Configuration configuration, const Registry& registry, Metrics& metrics)
    : settings_(std::move(configuration.settings)),
      registry_(registry),
      metrics_(metrics),
      worker_id_(fmt::format("{}-{}-{}", host_name(), ::getpid(), new_uuid().substr(0, 8))),
      configured_(std::move(configuration.streams)) {}

void Daemon::start() {
  follow(std::move(configured_));
}

void Daemon::follow(std::vector<StreamConfig> streams) {
  Runners leaving;
  {
    const MutexLock lock(mutex_);
    const auto stays =
        std::stable_partition(runners_.begin(), runners_.end(), [&](const auto& runner) {
          return std::ranges::any_of(
              streams, [&](const StreamConfig& stream) { return runner->runs(stream); });
        });
    std::move(stays, runners_.end(), std::back_inserter(leaving));
    runners_.erase(stays, runners_.end());
  }
  std::vector<StreamRunner*> ending;
  for (const auto& runner : leaving) ending.push_back(runner.get());
  end(ending);
  for (auto& runner : leaving) {
    const std::string name = runner->name();
    runner.reset();
    const bool stays = std::ranges::any_of(
        streams, [&](const StreamConfig& stream) { return stream.pipeline.name == name; });
    if (!stays) metrics_.drop(name);
  }
  for (StreamConfig& stream : streams) {
    const MutexLock lock(mutex_);
    const bool runs =
        std::ranges::any_of(runners_, [&](const auto& runner) { return runner->runs(stream); });
    if (runs) continue;
    log::info("stream", stream.pipeline.name, "sink {}", stream.pipeline.sink_type);
    runners_.push_back(std::make_unique<StreamRunner>(std::move(stream), settings_, registry_,
                                                      metrics_, worker_id_));
    runners_.back()->start();
  }
}

void Daemon::end(std::span<StreamRunner* const> runners) {
  for (StreamRunner* runner : runners) runner->request_stop();
  for (StreamRunner* runner : runners) runner->stop();
}

void Daemon::stop() {
  std::vector<StreamRunner*> ending;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    for (const auto& runner : runners_) ending.push_back(runner.get());
  }
  end(ending);
}

status::Snapshot Daemon::snapshot() const {
  status::Snapshot snapshot;
  snapshot.worker_id = worker_id_;
  snapshot.group = "postgres-stream";
  snapshot.uptime = std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - started_);
  snapshot.database_connected = true;
  snapshot.catalog_read = true;
  const MutexLock lock(mutex_);
  snapshot.stopping = stopping_;
  for (const auto& runner : runners_) {
    StreamRunner::Report report = runner->report();
    snapshot.database_connected = snapshot.database_connected && report.connected;
    snapshot.catalog_read = snapshot.catalog_read && report.installed;
    if (!snapshot.database_error) snapshot.database_error = std::move(report.error);
    snapshot.control_silent = std::max(snapshot.control_silent, report.silent);
    snapshot.pipelines.push_back(std::move(report.pipeline));
  }
  return snapshot;
}

std::vector<status::DeadLetters> Daemon::dead_letters() {
  std::vector<status::DeadLetters> letters;
  const MutexLock lock(mutex_);
  for (const auto& runner : runners_) letters.push_back(runner->dead_letters());
  return letters;
}

}  // namespace relay::stream_program
