#pragma once

#include <memory>
#include <optional>
#include <stop_token>

#include "connector/source.h"
#include "core/deadline.h"
#include "envelope/encoder.h"
#include "pipeline/metrics.h"
#include "pipeline/recovery.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// The reader thread of a pipeline: reads the next batch, encodes it and puts it into the queue.
/// Reads only while the queue has room, and gives up nothing: what fails is tried again.
class Reader {
 public:
  Reader(const PipelineSpec& spec, PipelineHooks hooks, Source& source,
         std::unique_ptr<envelope::Encoder> encoder, PipelineMetrics& metrics, SharedState& shared);

  /// Runs until a stop, the end of the pipeline, or sleep. The thread's whole life; may be called
  /// again when the threads have ended.
  void run(std::stop_token stop);

 private:
  bool open(std::stop_token stop);
  void read_all(std::stop_token stop);
  bool wait_for_room(std::stop_token stop);
  bool may_fall_asleep() const;
  bool read_replay(std::stop_token stop);
  void source_away();
  void tend(std::stop_token stop);
  void measure_lag();
  void set_lag(std::optional<std::int64_t> lag);

  const PipelineSpec& spec_;
  const PipelineHooks hooks_;
  Source& source_;
  const std::unique_ptr<envelope::Encoder> encoder_;
  PipelineMetrics& metrics_;
  SharedState& shared_;
  Recovery recovery_;
  SteadyClock::time_point lag_due_{};
  SteadyClock::time_point tend_due_{};
  bool read_failed_ = false;  // by an exception: only a successful read clears it
};

}  // namespace relay
