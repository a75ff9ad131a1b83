#pragma once

#include <memory>
#include <string>

#include "admin/http_server.h"
#include "pipeline/metrics.h"
#include "status/instance.h"

namespace relay::admin {

/// Serves /metrics, /health, /health/*, /api/pipelines and /api/dlq on `address`. Changes need
/// `admin_token`; if it is empty, every change is refused. The server must be stopped before the
/// instance is destroyed.
Result<std::unique_ptr<HttpServer>> serve(const std::string& address, status::Instance& instance,
                                          const Metrics& metrics, std::string admin_token);

}  // namespace relay::admin
