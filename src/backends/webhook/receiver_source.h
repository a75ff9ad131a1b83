#pragma once

#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/webhook/receiver.h"
#include "connector/field_mapping.h"
#include "connector/source.h"

namespace relay::webhook {

/// Takes HTTP requests in. Each becomes one event, and has its answer when that is settled: a
/// client that reads 200 knows that its message is committed. A client that reads anything else, or
/// nothing, sends again: its message may be committed nonetheless, and the same id makes the second
/// one a duplicate. Requests that come together are read together, so that they share a
/// transaction. From `open` to its destruction it listens; closed, it answers 503 to everything.
class ReceiverSource : public Source {
 public:
  ReceiverSource(ReceiverOptions options, std::string id_scope, FieldMapping mapping);

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::optional<std::int64_t> lag() override { return queue_.held(); }
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;
  bool answers_when_closed() const override { return receiver_ != nullptr; }

 private:
  const ReceiverOptions options_;
  const EventRules rules_;
  const FieldMapping mapping_;
  const std::shared_ptr<const TableShape> shape_;
  RequestQueue queue_;
  std::unique_ptr<Receiver> receiver_;  // ends before the queue that it fills
};

}  // namespace relay::webhook
