#include "pipeline/report.h"

#include <array>

#include "connector/rewound.h"

namespace relay {

std::string_view to_string(PipelineState state) {
  static constexpr std::array<std::string_view, 8> kNames = {
      "starting", "idle", "running", "retrying", "paused", "misconfigured", "stopped", "standby"};
  return kNames[static_cast<std::size_t>(state)];
}

std::optional<PipelineEnd> end_of(const Error& error) {
  if (error.error_class != ErrorClass::fenced) return std::nullopt;
  const bool rewound = error.code == kRewound;
  return PipelineEnd{rewound ? PipelineEnd::Kind::rewound : PipelineEnd::Kind::fenced, error};
}

}  // namespace relay
