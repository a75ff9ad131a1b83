#include "admin/routes.h"

#include <algorithm>
#include <chrono>

#include "admin/health.h"
#include "core/text.h"

namespace relay::admin {

using coordinator::Coordinator;
using coordinator::Snapshot;

namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kPipelines = "/api/pipelines";

HttpResponse json(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.content_type = kJson;
  response.body = std::move(body) + "\n";
  return response;
}

HttpResponse problem(int status, std::string_view text) {
  return json(status, fmt::format(R"({{"error":{}}})", json_string(text)));
}

HttpResponse health(const Snapshot& snapshot) {
  const auto now = std::chrono::system_clock::now();
  const int status = health_of(snapshot, now) == Health::unhealthy ? 503 : 200;
  return json(status, health_json(snapshot, now));
}

HttpResponse ready(const Snapshot& snapshot) {
  const bool is_ready = snapshot.database_connected && snapshot.catalog_read && !snapshot.stopping;
  return json(is_ready ? 200 : 503, fmt::format(R"({{"ready":{}}})", is_ready));
}

HttpResponse drained(const Snapshot& snapshot) {
  const bool waits =
      std::any_of(snapshot.pipelines.begin(), snapshot.pipelines.end(), [](const auto& pipeline) {
        return pipeline.owned &&
               (pipeline.report.has_work || pipeline.report.state == PipelineState::starting);
      });
  const bool is_drained = !waits && snapshot.catalog_read;
  return json(is_drained ? 200 : 202, fmt::format(R"({{"drained":{}}})", is_drained));
}

HttpResponse pipelines(const Snapshot& snapshot, std::string_view name) {
  const auto now = std::chrono::system_clock::now();
  std::string list;
  for (const auto& pipeline : snapshot.pipelines) {
    if (pipeline.name == name) return json(200, pipeline_json(pipeline, now));
    if (!list.empty()) list += ',';
    list += pipeline_json(pipeline, now);
  }
  if (!name.empty()) return problem(404, fmt::format("there is no pipeline {}", name));
  return json(200, "[" + list + "]");
}

HttpResponse answer(const HttpRequest& request, const Coordinator& coordinator,
                    const Metrics& metrics) {
  if (request.method != "GET" && request.method != "HEAD") {
    return problem(405, "only GET and HEAD are answered here");
  }
  const std::string& path = request.path;
  if (path == "/metrics") {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics.text();
    return response;
  }
  if (path == "/health/live") return json(200, R"({"live":true})");
  if (path == "/health") return health(coordinator.snapshot());
  if (path == "/health/ready") return ready(coordinator.snapshot());
  if (path == "/health/drained") return drained(coordinator.snapshot());
  if (path == kPipelines) return pipelines(coordinator.snapshot(), {});
  if (path.starts_with(std::string(kPipelines) + "/")) {
    return pipelines(coordinator.snapshot(), std::string_view(path).substr(kPipelines.size() + 1));
  }
  return problem(404,
                 "known are /metrics, /health, /health/live, /health/ready, /health/drained "
                 "and /api/pipelines");
}

}  // namespace

Result<std::unique_ptr<HttpServer>> serve(const std::string& address,
                                          const Coordinator& coordinator, const Metrics& metrics) {
  return HttpServer::start(address, [&coordinator, &metrics](const HttpRequest& request) {
    return answer(request, coordinator, metrics);
  });
}

}  // namespace relay::admin
