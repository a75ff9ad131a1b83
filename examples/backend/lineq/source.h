#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "connector/field_mapping.h"
#include "connector/source.h"
#include "connector/unsettled.h"
#include "core/mutex.h"
#include "lineq/connection.h"
#include "lineq/options.h"

namespace relay::lineq {

/// Reads a queue. The server sends its messages in order, and keeps each until it is acknowledged;
/// on a new connection it begins again with the first that is not. Acknowledgements are sent by the
/// reader thread, at its next turn.
class LineqSource : public Source {
 public:
  struct Rules {
    std::string id_scope;  ///< begins ids that are of the queue only, with a colon; may be empty
    std::int64_t max_record_bytes = 32 << 20;
  };
  LineqSource(SourceOptions options, Rules rules, FieldMapping mapping);

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::chrono::milliseconds tend(std::stop_token stop) override;
  /// The protocol does not tell it.
  std::optional<std::int64_t> lag() override { return std::nullopt; }
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  Result<void> connect(std::stop_token stop);
  Result<void> add(RecordBatch& batch, const std::vector<std::string>& line);
  void send_acknowledgements();

  const SourceOptions options_;
  const Rules rules_;
  const FieldMapping mapping_;
  const std::shared_ptr<const TableShape> shape_;

  // The reader's.
  std::unique_ptr<Connection> connection_;
  std::string incarnation_;  // of the queue: another one counts its messages from 1 again
  std::int64_t told_ = 0;    // the last message whose acknowledgement this connection was given

  Mutex mutex_;
  /// The server's numbers of the messages that were read; 0: of a queue that is gone. On a new
  /// connection a message comes again as another record.
  Unsettled<std::int64_t> unsettled_ RELAY_GUARDED_BY(mutex_);
  std::int64_t settled_ RELAY_GUARDED_BY(mutex_) = 0;  // all messages of the queue up to this one
};

}  // namespace relay::lineq
