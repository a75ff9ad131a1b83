#pragma once

#include <memory>
#include <string>

#include "admin/http_server.h"
#include "coordinator/coordinator.h"

namespace relay::admin {

/// Serves /metrics, /health, /health/live, /health/ready, /health/drained and /api/pipelines on
/// `address`. The server must be stopped before the coordinator ends.
Result<std::unique_ptr<HttpServer>> serve(const std::string& address,
                                          const coordinator::Coordinator& coordinator,
                                          const Metrics& metrics);

}  // namespace relay::admin
