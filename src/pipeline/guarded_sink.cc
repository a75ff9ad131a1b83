#include "pipeline/guarded_sink.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace relay {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kDeliveryTimeout{30000};
constexpr milliseconds kLeaseCheck{10};

}  // namespace

GuardedSink::GuardedSink(const PipelineSpec& spec, Lease& lease, std::unique_ptr<Sink> sink,
                         PipelineMetrics& metrics, SharedState& shared, Recovery& recovery)
    : lease_(lease),
      sink_(std::move(sink)),
      metrics_(metrics),
      shared_(shared),
      recovery_(recovery),
      limiter_(spec.rate_limit) {
  sink_->send_under(lease);
}

bool GuardedSink::open(std::stop_token stop) {
  if (open_) return true;
  Backoff pause = recovery_.reconnect_backoff();
  while (!open_) {
    if (shared_.stopping() || !wait_for_lease(stop)) return false;
    const auto opened = sink_->open(stop);
    if (!opened) {
      metrics_.errors.Increment();
      metrics_.sink_connected.Set(0);
      if (!recovery_.wait_after(opened.error(), pause, stop)) return false;
      continue;
    }
    open_ = true;
    // After a failed delivery only another one shows whether the sink takes messages again.
    if (!delivery_failed_) metrics_.sink_connected.Set(1);
    shared_.set_sink_open(true);
    // Without a failure here, only a successful delivery clears the error of the last one.
    if (pause.attempts() > 0) recovery_.succeeded();
  }
  return true;
}

void GuardedSink::look_after() {
  if (!open_ || !notices_end_) return;
  const auto ended = sink_->has_ended();
  notices_end_ = ended.has_value();
  if (!ended.value_or(false)) return;
  sink_->close();
  open_ = false;
  shared_.set_sink_open(false);
}

void GuardedSink::close() {
  sink_->close();
  open_ = false;
  // A pipeline that sleeps is not disconnected: its last attempt succeeded.
  if (!shared_.falling_asleep()) metrics_.sink_connected.Set(0);
  shared_.set_sink_open(false);
}

bool GuardedSink::wait_for_lease(std::stop_token stop) {
  while (!lease_.holds()) {
    if (!shared_.wait_for(kLeaseCheck, stop)) return false;
  }
  return true;
}

std::size_t GuardedSink::most_together(std::size_t wanted) const {
  return limiter_.slice(std::min(wanted, pace_.allowed()));
}

std::size_t GuardedSink::allowance(std::size_t wanted, std::stop_token stop) {
  const std::size_t count = most_together(wanted);
  const auto wait = limiter_.wait(SteadyClock::now());
  if (wait > wait.zero()) {
    if (!shared_.wait_for(std::chrono::ceil<milliseconds>(wait), std::move(stop))) return 0;
  }
  limiter_.pass(count, SteadyClock::now());
  return count;
}

GuardedSink::Delivery GuardedSink::deliver(std::span<const Message> messages,
                                           std::stop_token stop) {
  Delivery delivery;
  const auto began = SteadyClock::now();
  delivery.outcomes = sink_->deliver(messages, Deadline::after(kDeliveryTimeout), std::move(stop));
  delivery.took = SteadyClock::now() - began;
  delivery.summary = DeliverySummary::of(delivery.outcomes);
  pace_.observe(messages.size(), delivery.summary.settled, delivery.took);
  return delivery;
}

void GuardedSink::answered() {
  delivery_failed_ = false;
  metrics_.sink_connected.Set(1);
}

void GuardedSink::failed(const Error& unknown) {
  if (!needs_new_connection(unknown)) return;
  sink_->close();
  open_ = false;
  delivery_failed_ = true;
  metrics_.sink_connected.Set(0);
  shared_.set_sink_open(false);
}

}  // namespace relay
