#include "pipeline/delivery_round.h"

#include <chrono>
#include <utility>

#include "core/log.h"

namespace relay {

namespace {

Timestamp now() {
  return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}

/// Messages with these indexes; without copying where none lies between them.
std::span<const Message> messages_at(std::span<const std::size_t> indexes,
                                     const MessageBatch& batch, std::vector<Message>& copies) {
  if (indexes.back() - indexes.front() == indexes.size() - 1) {
    return std::span(batch.messages).subspan(indexes.front(), indexes.size());
  }
  copies.reserve(indexes.size());
  for (const std::size_t index : indexes) copies.push_back(batch.messages[index]);
  return copies;
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

bool DeliveryRound::run(const MessageBatch& batch, Settlement& settlement, HeldBack& held,
                        Backoff& pause, std::stop_token stop) {
  if (!sink_.wait_for_lease(stop)) return false;
  // Such a message is pending only where it is to stop the pipeline.
  const SharedError& refused = batch.messages[settlement.pending().front()].refused;
  if (refused) return halt(*refused, std::move(stop));
  std::vector<std::size_t> chosen;
  std::span<const std::size_t> sendable = settlement.pending();
  if (!held.empty()) {
    const auto pending = settlement.pending();
    chosen.assign(pending.begin(), pending.end());
    parked_.leave_out(batch, chosen);
    chosen = held.sendable(batch, chosen, SteadyClock::now());
    sendable = chosen;
  }
  const std::size_t together = parked_.sent_together(batch, settlement, sendable);
  if (together == 0) {
    return shared_.wait_for_more(batch, held.next_due(SteadyClock::now()), std::move(stop));
  }
  const std::size_t count = sink_.allowance(together, stop);
  if (count == 0) return false;
  return send(batch, sendable.first(count), settlement, held, pause, std::move(stop));
}

bool DeliveryRound::send(const MessageBatch& batch, std::span<const std::size_t> sent,
                         Settlement& settlement, HeldBack& held, Backoff& pause,
                         std::stop_token stop) {
  std::vector<Message> copies;
  const auto messages = messages_at(sent, batch, copies);
  const auto delivery = sink_.deliver(messages, stop);
  const DeliverySummary& summary = delivery.summary;
  if (summary.rejected) parked_.note(messages, delivery.outcomes);
  held.note(sent, delivery.outcomes, SteadyClock::now());
  settlement.record(sent, delivery.outcomes);
  shared_.delivered(summary.sink_takes(), summary.settled > 0);
  metrics_.errors.Increment(static_cast<double>(summary.failed));
  metrics_.observe_delivery(messages, delivery.outcomes, delivery.took, now());

  const auto next = summary.next(spec_.on_reject);
  if (next == DeliverySummary::Next::retry) return retry(summary, pause, std::move(stop));
  sink_.answered();
  if (next == DeliverySummary::Next::halt) return halt(summary.halt_error(), std::move(stop));
  if (summary.settled > 0) pause.reset();
  if (summary.refused) {
    metrics_.retries.Increment();
    recovery_.report(*summary.refused);
  } else if (held.empty()) {
    recovery_.succeeded();
  }
  return true;
}

bool DeliveryRound::retry(const DeliverySummary& summary, Backoff& pause, std::stop_token stop) {
  metrics_.retries.Increment();
  if (summary.settled > 0) pause.reset();
  sink_.failed(*summary.unknown);
  return recovery_.wait_after(*summary.unknown, pause, std::move(stop));
}

/// Waits until the operator resumes the pipeline; then what is not settled is sent again.
bool DeliveryRound::halt(const Error& error, std::stop_token stop) {
  log::failure("stopped", spec_.name, error);
  return shared_.halt(error, std::move(stop));
}

}  // namespace relay
