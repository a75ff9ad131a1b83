#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
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
#include "backends/rabbitmq/tags.h"
#include "connector/field_mapping.h"
#include "connector/source.h"
#include "core/deadline.h"
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
/// The library's connection serves one thread at a time: whoever calls it holds the mutex. A reader
/// that waits does not hold it, so that acknowledgements go out at once.
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
  Result<void> grow_window();
  Result<RecordBatch> take(const ReadLimits& limits, std::stop_token stop);
  Result<void> take_notice(RecordBatch& batch, const Notice& notice, std::stop_token stop);
  Result<void> take_of_stream(RecordBatch& batch, const Delivered& message, std::stop_token stop);
  void add(RecordBatch& batch, const Delivered& message);
  void warn_of_count(const Delivered& message);
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

  std::mutex mutex_;                        // of what follows
  std::unique_ptr<Connection> connection_;  // only the reader's thread replaces it
  bool broken_ = false;                     // it is of no use any more
  bool warned_of_count_ = false;            // on this connection
  std::uint16_t window_ = 0;                // prefetch of the consumer; 0: there is none yet
  bool proved_ = false;                     // a message of this connection was settled
  Tags tags_;
  StreamPlace place_;
};

}  // namespace relay::rabbitmq
