// What the catalog and the file say there should be, and what somebody asked of it.
#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/coordinator.h"
#include "core/log.h"

namespace relay::coordinator {

using config::PipelineConfig;

Result<void> Coordinator::refresh_catalog(std::stop_token stop) {
  bool reload = false;
  {
    const std::lock_guard lock(mutex_);
    reload = std::exchange(reload_, false);
    catalog_changed_ = false;
  }
  const auto version = session_->catalog_version(stop);
  if (!version) return fail(version.error());
  if (reload && load_file_) {
    auto loaded = load_file_();
    if (loaded) {
      from_file_ = std::move(*loaded);
    } else {
      // A file that cannot be parsed changes nothing.
      log::failure("configuration", "", loaded.error());
    }
  }
  if (!reload && *version == catalog_version_) return {};
  const auto entries = session_->catalog(stop);
  if (!entries) return fail(entries.error());
  from_sql_.clear();
  for (const CatalogEntry& entry : *entries) {
    from_sql_.push_back(config::pipeline_from_json(entry.name, entry.direction, entry.enabled,
                                                   entry.config, settings_.access));
  }
  catalog_version_ = *version;
  apply(merge(from_sql_));
  const std::lock_guard lock(mutex_);
  catalog_read_ = true;
  controls_changed_ = true;
  return {};
}

/// Pipelines of catalog and file. A name that both use is an error of that name: which of the two
/// is meant, nobody can tell.
std::vector<PipelineConfig> Coordinator::merge(std::vector<PipelineConfig> from_sql) const {
  std::map<std::string, std::size_t> by_name;
  for (std::size_t i = 0; i < from_sql.size(); ++i) by_name.emplace(from_sql[i].name, i);
  for (const auto& pipeline : from_file_) {
    const auto [found, is_new] = by_name.emplace(pipeline.name, from_sql.size());
    if (is_new) {
      from_sql.push_back(pipeline);
      continue;
    }
    PipelineConfig& other = from_sql[found->second];
    other.problems.push_back({ErrorClass::misconfigured,
                              "name_taken",
                              fmt::format("{}: the name {} is that of another pipeline too ({})",
                                          pipeline.place, pipeline.name, other.place),
                              "rename one of the two, or delete it",
                              {}});
    other.fingerprint += pipeline.fingerprint;
    other.enabled = true;
  }
  std::erase_if(from_sql, [](const PipelineConfig& pipeline) { return !pipeline.enabled; });
  return from_sql;
}

/// Makes the table follow the configuration: exactly what changed is stopped or remade.
void Coordinator::apply(std::vector<PipelineConfig> wanted) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) entry->removed = true;
  for (PipelineConfig& config : wanted) {
    auto& entry = table_[config.name];
    if (!entry) {
      entry = std::make_unique<Entry>();
      metrics_.pipeline(config.name);
      log::info("pipeline_added", config.name, "source {}, sink {}", config.source_type,
                config.sink_type);
    }
    entry->removed = false;
    if (entry->config.fingerprint != config.fingerprint || entry->config.name.empty()) {
      for (const Error& warning : warnings_of(config, registry_)) {
        log::warn(warning.code, config.name, "{} Remedy: {}", warning.message, warning.remedy);
      }
      entry->problem.reset();
      entry->try_again = {};
      if (entry->assembled.pipeline) {
        log::info("pipeline_changed", config.name, "the configuration changed");
        begin_stop(*entry);
      }
    }
    entry->config = std::move(config);
  }
  for (auto& [name, entry] : table_) {
    if (entry->removed) begin_stop(*entry);
  }
}

Result<void> Coordinator::refresh_controls(std::stop_token stop) {
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(controls_changed_, false)) return {};
  }
  const auto controls = session_->controls(stop);
  if (!controls) return fail(controls.error());
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    Control now;
    for (const auto& [pipeline, control] : *controls) {
      if (pipeline != name) continue;
      now.paused = now.paused || control.paused;
      now.replays.insert(now.replays.end(), control.replays.begin(), control.replays.end());
    }
    const bool asked = asked_.contains(name);
    if (resumed_.contains(name)) entry->settled->acknowledge();
    if (entry->assembled.pipeline && !entry->stopping) {
      Pipeline& pipeline = *entry->assembled.pipeline;
      if (asked || now.paused != entry->control.paused) pipeline.set_paused(now.paused);
      for (const ReplayRequest& replay : now.replays) {
        const bool known = std::any_of(entry->control.replays.begin(), entry->control.replays.end(),
                                       [&](const auto& other) { return other.id == replay.id; });
        if (!known) pipeline.replay(replay);
      }
      if (asked) {
        pipeline.dead_letters_changed();
        pipeline.nudge();
      }
    }
    entry->control = std::move(now);
  }
  asked_.clear();
  resumed_.clear();
  return {};
}

}  // namespace relay::coordinator
