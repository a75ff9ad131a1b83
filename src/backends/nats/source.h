#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/nats/ack_subject.h"
#include "backends/nats/event.h"
#include "backends/nats/puller.h"
#include "backends/nats/source_options.h"
#include "connector/endpoint_walk.h"
#include "connector/field_mapping.h"
#include "connector/source.h"
#include "connector/unsettled.h"
#include "core/mutex.h"

namespace relay::nats {

/// Reads a JetStream stream through a durable pull consumer. A message is acknowledged only when
/// `acknowledge` says that it is settled; until then the server is told that it is in work, however
/// long that takes, and also of what came and no batch has yet. What a broken connection or a
/// killed relay leaves open comes again after `ack_wait`; what an orderly close leaves open comes
/// again at once.
class NatsSource : public Source {
 public:
  NatsSource(SourceOptions options, EventRules rules, FieldMapping mapping);
  ~NatsSource() override;

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::chrono::milliseconds tend(std::stop_token stop) override;
  std::optional<std::int64_t> lag() override;
  bool lag_may_be_withheld() const override { return true; }
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  Result<void> connect(std::stop_token stop);
  /// A message that is ours to settle, with what its record needs to know.
  struct Taken {
    Puller::Received message;
    AckSubject place;  ///< points into the message
    std::int64_t number = 0;
    std::int64_t stream_created_ns = 0;
  };
  Result<std::optional<Taken>> next(std::chrono::milliseconds time, std::size_t max_bytes);
  Result<std::optional<Taken>> take_in(Puller::Received message);
  void add(RecordBatch& batch, const Taken& taken);
  void answer(const std::string& reply, const char* what) RELAY_REQUIRES(mutex_);
  void keep_in_work(std::stop_token stop);

  const SourceOptions options_;
  const EventRules rules_;
  const FieldMapping mapping_;
  const std::shared_ptr<const TableShape> shape_;
  EndpointWalk endpoints_;
  std::deque<Taken> ahead_;          // came while the pipeline took nothing in; the reader's
  std::uint64_t last_delivery_ = 0;  // of the puller, as its consumer counts them

  Mutex mutex_;
  std::unique_ptr<Puller> puller_;  // the reader replaces it with the mutex held; others hold it
  std::int64_t stream_created_ns_ RELAY_GUARDED_BY(mutex_) = 0;
  /// Reply subjects; empty: of a stream that is gone.
  Unsettled<std::string> unsettled_ RELAY_GUARDED_BY(mutex_);
  Condition closing_;
  std::jthread keeper_;
};

}  // namespace relay::nats
