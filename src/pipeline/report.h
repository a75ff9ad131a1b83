#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "connector/end_report.h"
#include "core/error.h"
#include "core/record.h"
#include "pipeline/rejection_run.h"

namespace relay {

enum class PipelineState {
  starting,
  idle,           ///< nothing to do
  running,        ///< delivering
  retrying,       ///< a transient error: the operation is tried again, for ever
  paused,         ///< an operator paused it
  misconfigured,  ///< the operator has to change something; tried again every 30 s
  stopped,  ///< until resumed: `on_reject = stop` met a rejected message, or the sink asks for it
  standby,  ///< another instance owns it
};
std::string_view to_string(PipelineState);

/// Why a pipeline ended by itself. Its owner decides what comes next.
struct PipelineEnd {
  enum class Kind {
    fenced,   ///< another instance owns it
    rewound,  ///< the source no longer holds what was read from it (a failover, a restored backup)
    defect,   ///< an exception: this process ran out of something, or has a defect
  };
  Kind kind = Kind::defect;
  Error error;

  /// False: a position that this pipeline settled may not be written any more.
  bool may_commit() const { return kind == Kind::defect; }
};

/// The end that an error means for the pipeline that meets it; nothing: it is tried again.
std::optional<PipelineEnd> end_of(const Error& error);

/// A snapshot of how a pipeline does.
struct PipelineReport {
  PipelineState state = PipelineState::starting;
  std::optional<Error> error;
  std::chrono::system_clock::time_point since{};          ///< in this state
  std::chrono::system_clock::time_point last_progress{};  ///< something settled, or nothing to do
  Position position;
  std::optional<std::int64_t> lag;
  bool has_work = false;  ///< records are read and not settled, or known to wait
  bool asleep = false;    ///< no threads; `wake` starts them
  std::optional<PipelineEnd> end;
  RejectionRun::Report rejections;  ///< none delivered since they began
  std::optional<EndReport> source;  ///< nothing: it has none
  std::optional<EndReport> sink;    ///< the same
};

}  // namespace relay
