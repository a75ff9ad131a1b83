#include "admin/routes.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "admin/access.h"
#include "admin/api.h"
#include "admin/health.h"
#include "core/text.h"

namespace relay::admin {

using status::Instance;
using status::Snapshot;

namespace {

constexpr std::string_view kPipelines = "/api/pipelines";

HttpResponse health(const Snapshot& snapshot) {
  const auto now = std::chrono::system_clock::now();
  const int status = health_of(snapshot, now) == Health::unhealthy ? 503 : 200;
  return json_response(status, health_json(snapshot, now));
}

HttpResponse ready(const Snapshot& snapshot) {
  const bool is = is_ready(snapshot);
  return json_response(is ? 200 : 503, fmt::format(R"({{"ready":{}}})", is));
}

HttpResponse drained(const Snapshot& snapshot) {
  const bool waits =
      std::any_of(snapshot.pipelines.begin(), snapshot.pipelines.end(), [](const auto& pipeline) {
        return pipeline.owned &&
               (pipeline.report.has_work || pipeline.report.state == PipelineState::starting);
      });
  const bool is_drained = !waits && snapshot.catalog_read;
  return json_response(is_drained ? 200 : 202, fmt::format(R"({{"drained":{}}})", is_drained));
}

HttpResponse pipelines(const Snapshot& snapshot, std::string_view name) {
  const auto now = std::chrono::system_clock::now();
  std::string list;
  for (const auto& pipeline : snapshot.pipelines) {
    if (pipeline.name == name) return json_response(200, pipeline_json(pipeline, now));
    if (!list.empty()) list += ',';
    list += pipeline_json(pipeline, now);
  }
  if (!name.empty()) return problem_response(404, fmt::format("there is no pipeline {}", name));
  return json_response(200, "[" + list + "]");
}

bool is_read(const HttpRequest& request) {
  return request.method == "GET" || request.method == "HEAD";
}

/// Lanes of the server, by index. A probe waits neither for rendering nor for the database.
enum LaneIndex : std::size_t { kStatusLane, kMetricsLane, kPipelinesLane, kReadLane, kChangeLane };
const std::vector<Lane> kLanes = {
    {.workers = 1, .waiting = 8, .shared = true},   // /health, which has three paths
    {.workers = 1, .waiting = 8, .shared = true},   // /metrics
    {.workers = 1, .waiting = 16, .shared = true},  // /api/pipelines: any number of paths
    {.workers = 2, .waiting = 16},                  // reads of the database, without a token
    {.workers = 1, .waiting = 16},                  // changes, with the token
};

/// None: the request is answered at once, because the answer needs nothing else (liveness,
/// refusals).
std::optional<std::size_t> lane_of(const HttpRequest& request, std::string_view admin_token) {
  const std::string_view path = request.path;
  if (!is_read(request)) {
    const bool may_change = access_of(request, admin_token) == Access::granted;
    return may_change ? std::optional<std::size_t>(kChangeLane) : std::nullopt;
  }
  if (path == "/health" || path == "/health/ready" || path == "/health/drained") {
    return kStatusLane;
  }
  if (path == "/metrics") return kMetricsLane;
  if (path.starts_with(kPipelines)) return kPipelinesLane;
  if (path.starts_with("/api/")) return kReadLane;
  return std::nullopt;
}

/// Answers a GET. /metrics and /health/live do not depend on the instance.
HttpResponse read(const HttpRequest& request, const Instance& instance, const Metrics& metrics,
                  Api& api) {
  const std::string& path = request.path;
  if (path == "/metrics") {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics.text();
    return response;
  }
  if (path == "/health/live") return json_response(200, R"({"live":true})");
  if (path == "/health") return health(instance.snapshot());
  if (path == "/health/ready") return ready(instance.snapshot());
  if (path == "/health/drained") return drained(instance.snapshot());
  if (path == "/api/dlq") return api.dead_letters(request);
  if (path == kPipelines) return pipelines(instance.snapshot(), {});
  if (path.starts_with(std::string(kPipelines) + "/")) {
    return pipelines(instance.snapshot(), std::string_view(path).substr(kPipelines.size() + 1));
  }
  return problem_response(404, "there is nothing here",
                          "known are /metrics, /health, /health/live, /health/ready, "
                          "/health/drained, /api/pipelines and /api/dlq");
}

HttpResponse answer(const HttpRequest& request, const Instance& instance, const Metrics& metrics,
                    Api& api) {
  if (is_read(request)) return read(request, instance, metrics, api);
  if (request.method == "POST" && request.path.starts_with("/api/")) return api.change(request);
  HttpResponse response = problem_response(405, "only GET and HEAD are answered here");
  response.headers.emplace_back("Allow", "GET, HEAD");
  return response;
}

}  // namespace

Result<std::unique_ptr<HttpServer>> serve(const std::string& address, Instance& instance,
                                          const Metrics& metrics, std::string admin_token) {
  auto api = std::make_shared<Api>(instance, admin_token);
  HttpService service;
  service.handler = [&instance, &metrics, api](const HttpRequest& request) {
    return answer(request, instance, metrics, *api);
  };
  service.lanes = kLanes;
  service.lane_of = [token = std::move(admin_token)](const HttpRequest& request) {
    return lane_of(request, token);
  };
  service.busy = problem_response(503, "no answer in time: the database is slow, or too much asked",
                                  "ask again later; a change may have been made all the same");
  return HttpServer::start(address, std::move(service));
}

}  // namespace relay::admin
