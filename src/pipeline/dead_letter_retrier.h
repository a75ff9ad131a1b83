#pragma once

#include <span>
#include <stop_token>
#include <vector>

#include "core/dead_letter.h"
#include "core/dead_letter_queue.h"
#include "core/error.h"
#include "core/message.h"
#include "pipeline/guarded_sink.h"
#include "pipeline/metrics.h"
#include "pipeline/parked_keys.h"
#include "pipeline/recovery.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// Sends again the dead letters that an operator wants sent again. They obey the same lease, pace
/// and rate limit as batches, and with `on_reject = park_key` the order of their keys. Called by
/// the sender thread, between its deliveries.
class DeadLetterRetrier {
 public:
  DeadLetterRetrier(const PipelineSpec& spec, DeadLetterQueue& dead_letters, GuardedSink& sink,
                    ParkedKeys& parked, PipelineMetrics& metrics, SharedState& shared,
                    Recovery& recovery);

  /// One round: as many as may be sent together. Where more wait, the next round is requested.
  /// Tries until it succeeds, or the pipeline is to stop.
  void run(std::stop_token stop);

 private:
  Result<bool> retry_some(std::stop_token stop);
  Result<std::vector<DeadLetter>> ready(std::vector<DeadLetter> taken);
  Result<bool> send(std::span<const DeadLetter> letters, std::stop_token stop);
  Result<void> note(std::span<const DeadLetter> letters, std::span<const Outcome> outcomes);
  Result<void> refresh_parked();

  const PipelineSpec& spec_;
  DeadLetterQueue& dead_letters_;
  GuardedSink& sink_;
  ParkedKeys& parked_;
  PipelineMetrics& metrics_;
  SharedState& shared_;
  Recovery& recovery_;
};

}  // namespace relay
