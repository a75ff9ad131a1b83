#include "pipeline/sender.h"

#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include "core/shortage.h"

namespace relay {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kFlushAfter{50};
constexpr milliseconds kLookAfter{1000};

}  // namespace

Sender::Sender(const PipelineSpec& spec, Lease& lease, Source& source, std::unique_ptr<Sink> sink,
               std::unique_ptr<DeadLetterQueue> dead_letters, PipelineMetrics& metrics,
               SharedState& shared)
    : spec_(spec),
      source_(source),
      dead_letters_(std::move(dead_letters)),
      metrics_(metrics),
      shared_(shared),
      recovery_(Side::sender, spec, shared),
      parked_(spec.on_reject, spec.stops_at_failure),
      sink_(spec, lease, std::move(sink), metrics, shared, recovery_),
      committer_(spec, source, *dead_letters_, metrics, shared, recovery_),
      round_(spec, sink_, parked_, metrics, shared, recovery_),
      retrier_(spec, *dead_letters_, sink_, parked_, metrics, shared, recovery_) {}

void Sender::run(std::stop_token stop) {
  try {
    send_all(stop);
  } catch (const std::exception& exception) {
    recovery_.end({PipelineEnd::Kind::defect, shortage::error_of(exception, "delivering")});
  }
  sink_.close();
  shared_.wait_for_reader();
  // After a stop of this thread, what is not written yet is delivered again.
  if (!stop.stop_requested()) committer_.write_last_position();
  source_.close();
  if (!shared_.falling_asleep()) metrics_.source_connected.Set(0);
  shared_.sender_ended();
}

void Sender::send_all(std::stop_token stop) {
  using Kind = SharedState::Work::Kind;
  while (sink_.open(stop)) {
    std::optional<milliseconds> at_most;
    if (sink_.notices_end()) at_most = kLookAfter;
    if (committer_.position_due()) at_most = kFlushAfter;
    auto work = shared_.wait_for_work(at_most, stop);
    switch (work.kind) {
      case Kind::stop:
        return;
      case Kind::nothing:
        committer_.write_position(stop);
        sink_.look_after();
        break;
      case Kind::dead_letters:
        retrier_.run(stop);
        break;
      case Kind::batch:
        deliver(std::move(*work.batch), stop);
        break;
    }
  }
}

void Sender::deliver(MessageBatch batch, std::stop_token stop) {
  Settlement settlement(batch.messages, batch.records.records.size(),
                        spec_.on_reject == OnReject::stop);
  HeldBack held(spec_);
  Backoff pause = recovery_.backoff();
  std::size_t first = 0;  // everything before this message is settled
  while (true) {
    first = parked_.set_aside(batch, settlement, first);
    bool going = settlement.done() || (shared_.wait_while_paused(stop) && sink_.open(stop) &&
                                       round_.run(batch, settlement, held, pause, stop));
    going = committer_.acknowledge(batch, settlement, stop) && going;
    if (!going || settlement.done()) break;
    // A batch may take long. (Keys that are parked change between batches only.)
    if (spec_.on_reject != OnReject::park_key && shared_.take_retry_request()) retrier_.run(stop);
    if (shared_.append_to_stuck(batch, !held.empty())) {
      settlement.extend(batch.messages, batch.records.records.size());
    }
  }
  shared_.batch_done(batch.records.records.size());
}

}  // namespace relay
