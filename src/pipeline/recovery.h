#pragma once

#include <stop_token>
#include <string_view>

#include "core/backoff.h"
#include "core/error.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"
#include "pipeline/standing.h"

namespace relay {

/// What a thread of a pipeline does about an operation that failed: the error goes to the log and
/// into the report, and the thread waits before the next try. Each thread has its own.
class Recovery {
 public:
  Recovery(Side side, const PipelineSpec& spec, SharedState& shared);

  /// Reports the error and waits before the next try. False: there is none; the pipeline is to
  /// stop, or this error ends it.
  bool wait_after(const Error& error, Backoff& backoff, std::stop_token stop);
  /// Reports an error that does not keep the thread from going on.
  void report(const Error& error);
  /// An operation has succeeded: what failed before is over, also what failed in the pipeline that
  /// had this name before.
  void succeeded();
  /// The pipeline cannot go on. What is in flight is not lost to its source: the next pipeline
  /// reads it again.
  void end(const PipelineEnd& reason);

  Backoff backoff() const;
  /// For a server that cannot be reached.
  Backoff reconnect_backoff() const;

 private:
  const Side side_;
  const PipelineSpec& spec_;
  SharedState& shared_;
  bool worked_ = false;
};

/// The event under which the log tells what a side fails with.
std::string_view failure_event(Side side);

}  // namespace relay
