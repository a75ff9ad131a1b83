#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/rabbitmq/connection.h"
#include "backends/rabbitmq/depth.h"
#include "backends/rabbitmq/event.h"
#include "backends/rabbitmq/notice.h"
#include "backends/rabbitmq/options.h"
#include "backends/rabbitmq/queue.h"
#include "backends/rabbitmq/stream.h"
#include "connector/field_mapping.h"
#include "connector/source.h"
#include "connector/unsettled.h"
#include "core/deadline.h"
#include "core/mutex.h"
#include "state/local_position.h"

namespace relay::rabbitmq {

/// Consumes a queue or a stream. A message of a queue is acknowledged only when `acknowledge` says
/// that it is settled; what was read and not acknowledged comes again when the connection ends,
/// whichever way it does. How far a stream is settled is kept in the relay's own database.
///
/// A quorum queue counts how often it handed a message out, also where the relay only ended, and
/// may drop it beyond a limit. So nothing is consumed before the first `read`, which waits for the
/// sink; and of such a queue one message only, until one was settled.
///
/// The library's connection serves one thread at a time: the thread that calls it holds the mutex.
/// A reader that waits does not hold it, so that acknowledgements go out at once.
class RabbitSource : public Source {
 public:
  /// `position` is written to only where the queue is a stream.
  RabbitSource(SourceOptions options, EventRules rules, FieldMapping mapping,
               std::unique_ptr<state::LocalPosition> position);

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  /// What the broker has ready, and what it has handed out that is not acknowledged.
  std::optional<std::int64_t> lag() override;
  bool reads_for_open_sink_only() const override { return true; }
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  Result<std::unique_ptr<Connection>> connect(std::stop_token stop);
  Result<void> claim_position(std::stop_token stop);
  Result<void> ensure_consumer(std::stop_token stop);
  Result<void> grow_window() RELAY_REQUIRES(mutex_);
  Result<RecordBatch> take(const ReadLimits& limits, std::stop_token stop);
  Result<void> take_notice(RecordBatch& batch, const Notice& notice, std::stop_token stop)
      RELAY_REQUIRES(mutex_);
  Result<void> take_of_stream(RecordBatch& batch, const Delivered& message, std::stop_token stop)
      RELAY_REQUIRES(mutex_);
  void add(RecordBatch& batch, const Delivered& message) RELAY_REQUIRES(mutex_);
  void warn_of_count(const Delivered& message) RELAY_REQUIRES(mutex_);
  void replace(std::unique_ptr<Connection> connection);
  bool is_broken();
  bool is_stream() const { return queue_.type == QueueType::stream; }

  const SourceOptions options_;
  const EventRules rules_;
  const FieldMapping mapping_;
  const std::unique_ptr<state::LocalPosition> position_;

  // Of the reader's thread alone.
  EndpointWalk endpoints_;
  std::shared_ptr<const TableShape> shape_;
  bool warned_of_ids_ = false;
  bool warned_of_limit_ = false;
  bool seen_as_stream_ = false;  // a message had an offset
  FoundQueue queue_;
  QueueDepth depth_;
  SteadyClock::time_point proof_due_{};
  SteadyClock::time_point nothing_at_{};  // `read` waited, and the broker had nothing

  Mutex mutex_;
  /// The reader's thread replaces it with the mutex held, and waits on it without. All other use
  /// holds the mutex.
  std::unique_ptr<Connection> connection_;
  bool broken_ RELAY_GUARDED_BY(mutex_) = false;           // the connection is of no use any more
  bool warned_of_count_ RELAY_GUARDED_BY(mutex_) = false;  // on this connection
  /// Prefetch of the consumer; 0: there is none yet.
  std::uint16_t window_ RELAY_GUARDED_BY(mutex_) = 0;
  bool proved_ RELAY_GUARDED_BY(mutex_) = false;  // a message of this connection was settled
  Unsettled<std::uint64_t> tags_ RELAY_GUARDED_BY(mutex_);  // delivery tags of this connection
  StreamPlace place_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::rabbitmq
