#include "admin/health.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/secrets.h"
#include "core/text.h"

namespace relay::admin {

using status::PipelineStatus;
using status::Snapshot;
using TimePoint = std::chrono::system_clock::time_point;

namespace {

// The longest statement of the control thread takes 4 s.
constexpr std::chrono::seconds kHangsAfter{15};

std::string time_json(TimePoint at) {
  if (at == TimePoint{}) return "null";
  return json_string(format_timestamp(std::chrono::time_point_cast<std::chrono::microseconds>(at)));
}

/// The error, under the names of the columns of pgtrickle.relay_pipeline_status.
std::string error_json(const std::optional<Error>& error) {
  if (!error) return R"("last_error":null)";
  return fmt::format(R"("last_error":{},"error_class":{},"error_code":{},"remedy":{})",
                     json_string(secrets::masked(error->message)),
                     json_string(to_string(error->error_class)), json_string(error->code),
                     json_string(secrets::masked(error->remedy)));
}

std::string blockers_json(const std::vector<status::Blocker>& blockers) {
  std::string list;
  for (const status::Blocker& blocker : blockers) {
    const Error error = status::describe(blocker);
    if (!list.empty()) list += ',';
    list += fmt::format(
        R"({{"pid":{},"role":{},"application":{},"holds":{},"message":{},"remedy":{}}})",
        blocker.pid, json_string(blocker.role), json_string(blocker.application),
        json_string(blocker.holds), json_string(error.message), json_string(error.remedy));
  }
  return fmt::format(R"(,"blocked_by":[{}])", list);
}

std::string report_json(std::string_view name, const EndReport& report) {
  std::string numbers;
  for (const EndReport::Number& number : report.numbers) {
    if (!numbers.empty()) numbers += ',';
    numbers += fmt::format("{}:{}", json_string(number.name),
                           std::isfinite(number.value) ? fmt::format("{}", number.value) : "null");
  }
  std::string latest;
  for (const std::string& id : report.latest) {
    if (!latest.empty()) latest += ',';
    latest += json_string(id);
  }
  return fmt::format(
      R"(,"{}":{{"state":{},"numbers":{{{}}}{}{}}})", name, json_string(report.state), numbers,
      report.note.empty() ? "" : fmt::format(R"(,"note":{})", json_string(report.note)),
      latest.empty() ? "" : fmt::format(R"(,"latest":[{}])", latest));
}

std::string causes_json(const std::vector<status::Cause>& causes) {
  std::string list;
  for (const auto& [error, since] : causes) {
    if (!list.empty()) list += ',';
    list += fmt::format(R"({{"code":{},"message":{},"remedy":{},"since":{}}})",
                        json_string(error.code), json_string(secrets::masked(error.message)),
                        json_string(secrets::masked(error.remedy)), time_json(since));
  }
  return fmt::format(R"(,"causes":[{}])", list);
}

}  // namespace

std::string_view to_string(Health health) {
  switch (health) {
    case Health::healthy:
      return "healthy";
    case Health::degraded:
      return "degraded";
    case Health::unhealthy:
      return "unhealthy";
  }
  return "unhealthy";
}

std::optional<Error> instance_error(const Snapshot& snapshot) {
  if (snapshot.database_error) return snapshot.database_error;
  if (snapshot.stopping || snapshot.control_silent <= kHangsAfter) return std::nullopt;
  return Error{
      ErrorClass::transient,
      "control_hangs",
      fmt::format("the control thread has done nothing for {} s: what is said of pipelines "
                  "may be as old",
                  snapshot.control_silent.count()),
      "look for what it waits for, such as a secret's file; restart the relay if it lasts",
      {}};
}

bool is_ready(const Snapshot& snapshot) {
  const bool hangs = snapshot.control_silent > kHangsAfter;
  return snapshot.database_connected && snapshot.catalog_read && !snapshot.stopping && !hangs;
}

Health health_of(const Snapshot& snapshot, TimePoint now) {
  if (!snapshot.database_connected || !snapshot.catalog_read || instance_error(snapshot)) {
    return Health::unhealthy;
  }
  const bool degraded =
      std::any_of(snapshot.pipelines.begin(), snapshot.pipelines.end(),
                  [&](const auto& pipeline) { return status::is_degraded(pipeline, now); });
  return degraded || !snapshot.blockers.empty() || !snapshot.causes.empty() ? Health::degraded
                                                                            : Health::healthy;
}

std::string pipeline_json(const PipelineStatus& status, TimePoint now) {
  const PipelineReport& report = status.report;
  std::string out = fmt::format(
      R"({{"name":{},"state":{},"owner":{},"healthy":{},"source":{},"sink":{},"position":{},"lag":{},)"
      R"("since":{},"last_progress_at":{},{})",
      json_string(status.name), json_string(to_string(report.state)), status.owned,
      !status::is_degraded(status, now), json_string(status.source_type),
      json_string(status.sink_type), report.position.id,
      report.lag ? std::to_string(*report.lag) : "null", time_json(report.since),
      time_json(report.last_progress), error_json(report.error));
  if (const auto [pid, seconds] = status.oldest_open_writer; seconds > 0) {
    out += fmt::format(R"(,"held_back_by":{{"pid":{},"seconds":{:.1f}}})", pid, seconds);
  }
  if (report.source) out += report_json("source_report", *report.source);
  if (report.sink) out += report_json("sink_report", *report.sink);
  if (report.asleep) out += R"(,"asleep":true)";
  if (!status.causes.empty()) out += causes_json(status.causes);
  if (status.outbox_problem) {
    out += fmt::format(R"(,"outbox_problem":{{"outbox":{},"problem":{}}})",
                       json_string(status.outbox_problem->outbox),
                       json_string(secrets::masked(status.outbox_problem->problem)));
  }
  return out + "}";
}

std::string health_json(const Snapshot& snapshot, TimePoint now) {
  const auto owned = std::count_if(snapshot.pipelines.begin(), snapshot.pipelines.end(),
                                   [](const auto& pipeline) { return pipeline.owned; });
  std::string out = fmt::format(
      R"({{"status":{},"pipelines_owned":{},"uptime_seconds":{},"instance":{},"group":{},"pipelines":[)",
      json_string(to_string(health_of(snapshot, now))), owned, snapshot.uptime.count(),
      json_string(snapshot.worker_id), json_string(snapshot.group));
  bool first = true;
  for (const PipelineStatus& pipeline : snapshot.pipelines) {
    if (!first) out += ',';
    first = false;
    out += pipeline_json(pipeline, now);
  }
  out += ']';
  if (!snapshot.blockers.empty()) out += blockers_json(snapshot.blockers);
  if (!snapshot.causes.empty()) out += causes_json(snapshot.causes);
  if (const auto error = instance_error(snapshot)) out += ',' + error_json(error);
  return out + "}";
}

}  // namespace relay::admin
