#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "core/error.h"
#include "pipeline/report.h"

namespace relay {

/// The two threads of a pipeline.
enum class Side { reader, sender };

/// What the state of a pipeline follows from. A value: no clock, no thread.
struct Standing {
  bool paused = false;
  bool halted =
      false;  ///< until the operator resumes it: `on_reject = stop`, or the sink asks for that
  bool asleep = false;  ///< nothing to do: the threads are to end, or have ended
  bool source_open = false;
  bool sink_open = false;
  std::array<std::optional<Error>, 2> failures;  ///< by Side: what each thread fails with
  std::optional<PipelineEnd> end;

  std::optional<Error>& failure(Side side) { return failures[static_cast<std::size_t>(side)]; }
  bool failing() const { return failures[0] || failures[1]; }

  /// The pipeline ends by itself. An end that forbids commits is kept, and replaces one that does
  /// not.
  void end_with(PipelineEnd reason);
  /// A settled position may be written.
  bool may_commit() const { return !end || end->may_commit(); }

  /// `in_flight`: records that are read and not settled.
  PipelineState state(std::size_t in_flight) const;
  /// The error to report: of a defect that ended the pipeline, else of the sender, else of the
  /// reader.
  std::optional<Error> error() const;
};

}  // namespace relay
