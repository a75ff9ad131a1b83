#pragma once

#include <span>
#include <stop_token>
#include <vector>

#include "core/backoff.h"
#include "core/message.h"
#include "pipeline/guarded_sink.h"
#include "pipeline/held_back.h"
#include "pipeline/metrics.h"
#include "pipeline/parked_keys.h"
#include "pipeline/recovery.h"
#include "pipeline/settlement.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// One delivery of what is pending of a batch, as much as may be sent together: sends it, and
/// settles what the sink has decided. What is unknown stays pending, in order, for the next round;
/// what the broker refused while it takes others is held back, and the others go on.
/// Called by the sender thread.
class DeliveryRound {
 public:
  DeliveryRound(const PipelineSpec& spec, GuardedSink& sink, ParkedKeys& parked,
                PipelineMetrics& metrics, SharedState& shared, Recovery& recovery);

  /// The sink is open and something is pending. Waits after a failure, by `pause`. False: the
  /// pipeline is to stop.
  bool run(const MessageBatch& batch, Settlement& settlement, HeldBack& held, Backoff& pause,
           std::stop_token stop);

 private:
  bool send(const MessageBatch& batch, std::span<const std::size_t> sent, Settlement& settlement,
            HeldBack& held, Backoff& pause, std::stop_token stop);
  bool retry(const DeliverySummary& summary, Backoff& pause, std::stop_token stop);
  bool halt(const Error& error, std::stop_token stop);

  const PipelineSpec& spec_;
  GuardedSink& sink_;
  ParkedKeys& parked_;
  PipelineMetrics& metrics_;
  SharedState& shared_;
  Recovery& recovery_;
};

}  // namespace relay
