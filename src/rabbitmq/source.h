#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include "pipeline/field_mapping.h"
#include "pipeline/source.h"
#include "rabbitmq/connection.h"
#include "rabbitmq/event.h"
#include "rabbitmq/notice.h"
#include "rabbitmq/options.h"
#include "rabbitmq/tags.h"

namespace relay::rabbitmq {

/// Consumes a queue. A message is acknowledged only when `acknowledge` says that it is settled;
/// what was read and not acknowledged comes again when the connection ends, whichever way it does.
///
/// The library's connection serves one thread at a time: whoever calls it holds the mutex. A reader
/// that waits does not hold it, so that acknowledgements go out at once.
class RabbitSource : public Source {
 public:
  RabbitSource(SourceOptions options, EventRules rules, FieldMapping mapping, std::string pipeline)
      : options_(std::move(options)),
        rules_(std::move(rules)),
        mapping_(std::move(mapping)),
        pipeline_(std::move(pipeline)) {}

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  /// Brokers tell how much waits only to whom asks, and an answer would come behind all messages
  /// that were handed out before it.
  std::optional<std::int64_t> lag() override { return std::nullopt; }
  void close() override;

 private:
  Result<std::unique_ptr<Connection>> connect(std::stop_token stop);
  Result<void> prepare(Connection& connection);
  Result<RecordBatch> take(const ReadLimits& limits);
  void add(RecordBatch& batch, const Delivered& message);
  void replace(std::unique_ptr<Connection> connection);

  const SourceOptions options_;
  const EventRules rules_;
  const FieldMapping mapping_;
  const std::string pipeline_;
  std::size_t next_endpoint_ = 0;
  std::shared_ptr<const TableShape> shape_;
  bool warned_of_ids_ = false;

  std::mutex mutex_;                        // of what follows
  std::unique_ptr<Connection> connection_;  // only the reader's thread replaces it
  bool broken_ = false;                     // it is of no use any more
  Tags tags_;
};

}  // namespace relay::rabbitmq
