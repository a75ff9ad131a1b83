#pragma once

#include <memory>
#include <string>

#include "admin/http_server.h"
#include "coordinator/coordinator.h"

namespace relay::admin {

/// Serves /metrics, /health and its sisters, /api/pipelines and /api/dlq on `address`; changes are
/// for those who send `admin_token`, and for nobody where it is empty. The server must be stopped
/// before the coordinator ends.
Result<std::unique_ptr<HttpServer>> serve(const std::string& address,
                                          coordinator::Coordinator& coordinator,
                                          const Metrics& metrics, std::string admin_token);

}  // namespace relay::admin
