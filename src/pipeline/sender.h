#pragma once

#include <memory>
#include <stop_token>

#include "connector/sink.h"
#include "connector/source.h"
#include "core/dead_letter_queue.h"
#include "pipeline/committer.h"
#include "pipeline/dead_letter_retrier.h"
#include "pipeline/delivery_round.h"
#include "pipeline/guarded_sink.h"
#include "pipeline/metrics.h"
#include "pipeline/parked_keys.h"
#include "pipeline/recovery.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// The sender thread of a pipeline: delivers one batch after the other, in rounds until each of its
/// messages is settled, and commits what is settled after each round. Between batches, and between
/// the rounds of a batch that takes long, it sends dead letters again. Closes sink and source when
/// the pipeline ends.
class Sender {
 public:
  Sender(const PipelineSpec& spec, Lease& lease, Source& source, std::unique_ptr<Sink> sink,
         std::unique_ptr<DeadLetterQueue> dead_letters, PipelineMetrics& metrics,
         SharedState& shared);

  /// Runs until a stop, the end of the pipeline, or sleep. The thread's whole life; may be called
  /// again when the threads have ended.
  void run(std::stop_token stop);

 private:
  void send_all(std::stop_token stop);
  void deliver(MessageBatch batch, std::stop_token stop);

  const PipelineSpec& spec_;
  Source& source_;
  const std::unique_ptr<DeadLetterQueue> dead_letters_;
  PipelineMetrics& metrics_;
  SharedState& shared_;
  Recovery recovery_;
  ParkedKeys parked_;
  GuardedSink sink_;
  Committer committer_;
  DeliveryRound round_;
  DeadLetterRetrier retrier_;
};

}  // namespace relay
