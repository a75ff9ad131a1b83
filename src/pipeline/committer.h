#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "connector/source.h"
#include "core/dead_letter_queue.h"
#include "core/message.h"
#include "pipeline/metrics.h"
#include "pipeline/recovery.h"
#include "pipeline/settlement.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// Makes durable what is settled: writes rejected messages to the dead letters, then moves the
/// source's position behind them. Nothing goes on while either cannot be written. Called by the
/// sender thread.
class Committer {
 public:
  Committer(const PipelineSpec& spec, Source& source, DeadLetterQueue& dead_letters,
            PipelineMetrics& metrics, SharedState& shared, Recovery& recovery);

  /// Moves the position behind what is settled of the batch. False: the pipeline is to stop.
  bool acknowledge(const MessageBatch& batch, Settlement& settlement, std::stop_token stop);

  /// The source may have left a position to be written.
  bool position_due() const { return position_due_; }
  /// Writes the position that is due, if any. A position that cannot be written is a failure like
  /// any other, also where no batch follows.
  void write_position(std::stop_token stop);
  /// The same with one try only, for a pipeline that ends.
  void write_last_position();

 private:
  std::vector<DeadLetter> letters_of(const MessageBatch& batch, const Settlement& settlement,
                                     const Settlement::Progress& progress);
  bool commit(const Position& position, std::span<const DeadLetter> letters, std::stop_token stop);
  bool insist(const std::function<Result<void>()>& operation, std::stop_token stop);

  const PipelineSpec& spec_;
  Source& source_;
  DeadLetterQueue& dead_letters_;
  PipelineMetrics& metrics_;
  SharedState& shared_;
  Recovery& recovery_;
  bool position_due_ = false;
};

}  // namespace relay
