#include "pipeline/delivery_round.h"

#include <chrono>
#include <utility>

#include "core/log.h"

namespace relay {

namespace {

Timestamp now() {
  return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}

}  // namespace

DeliveryRound::DeliveryRound(const PipelineSpec& spec, GuardedSink& sink, ParkedKeys& parked,
                             PipelineMetrics& metrics, SharedState& shared, Recovery& recovery)
    : spec_(spec),
      sink_(sink),
      parked_(parked),
      metrics_(metrics),
      shared_(shared),
      recovery_(recovery) {}

bool DeliveryRound::run(const MessageBatch& batch, Settlement& settlement, Backoff& pause,
                        std::stop_token stop) {
  if (!sink_.wait_for_lease(stop)) return false;
  // Such a message is pending only where it is to stop the pipeline.
  const SharedError& refused = batch.messages[settlement.pending().front()].refused;
  if (refused) return halt(*refused, std::move(stop));
  std::vector<Message> copies;
  const auto messages = next_messages(batch, settlement, copies, stop);
  if (messages.empty()) return false;

  const auto delivery = sink_.deliver(messages, stop);
  const DeliverySummary& summary = delivery.summary;
  if (summary.rejected) parked_.note(messages, delivery.outcomes);
  settlement.record(delivery.outcomes);
  shared_.delivered(summary.sink_takes(), summary.settled > 0);
  metrics_.errors.Increment(static_cast<double>(summary.failed));
  metrics_.observe_delivery(messages, delivery.outcomes, delivery.took, now());

  const auto next = summary.next(spec_.on_reject);
  if (next == DeliverySummary::Next::retry) return retry(summary, pause, std::move(stop));
  sink_.answered();
  if (next == DeliverySummary::Next::halt) return halt(*summary.rejected, std::move(stop));
  recovery_.succeeded();
  return true;
}

/// The next pending messages to send, in order; without copying where none lies between them.
std::span<const Message> DeliveryRound::next_messages(const MessageBatch& batch,
                                                      const Settlement& settlement,
                                                      std::vector<Message>& copies,
                                                      std::stop_token stop) {
  const auto& pending = settlement.pending();
  const std::size_t count =
      sink_.allowance(parked_.sent_together(batch, settlement), std::move(stop));
  if (count == 0) return {};
  const std::size_t first = pending.front();
  if (pending[count - 1] - first == count - 1) {
    return std::span(batch.messages).subspan(first, count);
  }
  copies.reserve(count);
  for (std::size_t i = 0; i < count; ++i) copies.push_back(batch.messages[pending[i]]);
  return copies;
}

bool DeliveryRound::retry(const DeliverySummary& summary, Backoff& pause, std::stop_token stop) {
  metrics_.retries.Increment();
  if (summary.settled > 0) pause.reset();
  sink_.failed(*summary.unknown);
  return recovery_.wait_after(*summary.unknown, pause, std::move(stop));
}

/// `on_reject = stop`: waits until the operator resumes the pipeline; then the message is sent
/// again.
bool DeliveryRound::halt(const Error& error, std::stop_token stop) {
  log::failure("stopped", spec_.name, error);
  return shared_.halt(error, std::move(stop));
}

}  // namespace relay
