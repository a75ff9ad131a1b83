#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "status/status.h"

namespace relay::admin {

enum class Health { healthy, degraded, unhealthy };
std::string_view to_string(Health health);

/// What stops the whole instance: the database, or a control thread that hangs. Pure.
std::optional<Error> instance_error(const status::Snapshot& snapshot);

/// The database was reached, the catalog was read, and the control thread does not hang. Pure.
bool is_ready(const status::Snapshot& snapshot);

/// Unhealthy without the database or its schema, or while the control thread hangs; degraded while
/// a pipeline is degraded, the instance has a cause to be, or another session's locks keep this one
/// waiting; healthy otherwise (a standby is healthy). Pure.
Health health_of(const status::Snapshot& snapshot, std::chrono::system_clock::time_point now);

/// The body of GET /health.
std::string health_json(const status::Snapshot& snapshot,
                        std::chrono::system_clock::time_point now);

/// One pipeline, as in /health and GET /api/pipelines.
std::string pipeline_json(const status::PipelineStatus& status,
                          std::chrono::system_clock::time_point now);

}  // namespace relay::admin
