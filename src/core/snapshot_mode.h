#pragma once

#include <string_view>

#include "core/record.h"

namespace relay {

/// Delta::refresh_mode of rows that are no change: the table had them when the pipeline began
/// (`start: snapshot`).
constexpr std::string_view kSnapshotMode = "SNAPSHOT";

inline bool is_snapshot(const Delta& delta) {
  return delta.refresh_mode == kSnapshotMode;
}

}  // namespace relay
