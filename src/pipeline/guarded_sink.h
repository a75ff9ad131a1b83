#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "connector/sink.h"
#include "core/lease.h"
#include "pipeline/delivery_summary.h"
#include "pipeline/metrics.h"
#include "pipeline/pace.h"
#include "pipeline/rate_limiter.h"
#include "pipeline/recovery.h"
#include "pipeline/shared_state.h"
#include "pipeline/spec.h"

namespace relay {

/// The sink as the rest of the sender uses it. Opens it again when a delivery has failed, and keeps
/// what is sent within the lease, the rate limit, and about as much as the sink settles in a
/// second. Called by the sender thread.
class GuardedSink {
 public:
  GuardedSink(const PipelineSpec& spec, Lease& lease, std::unique_ptr<Sink> sink,
              PipelineMetrics& metrics, SharedState& shared, Recovery& recovery);

  /// Opens the sink unless it is open; tries until it succeeds. False: the pipeline is to stop.
  bool open(std::stop_token stop);
  /// While there is nothing to send: closes the sink if its connection has ended.
  void look_after();
  /// Whether `look_after` can see anything.
  bool notices_end() const { return notices_end_; }
  /// The sender thread ends.
  void close();

  /// Waits while this instance may send nothing. False: the pipeline is to stop.
  bool wait_for_lease(std::stop_token stop);
  bool lease_holds() const { return lease_.holds(); }

  /// The most messages that may be sent together, of `wanted`, whatever was sent before.
  std::size_t most_together(std::size_t wanted) const;
  /// How many of `wanted` messages may be sent now. Waits until it is at least one; 0: the pipeline
  /// is to stop.
  std::size_t allowance(std::size_t wanted, std::stop_token stop);

  struct Delivery {
    std::vector<Outcome> outcomes;
    DeliverySummary summary;
    std::chrono::nanoseconds took{0};
  };
  Delivery deliver(std::span<const Message> messages, std::stop_token stop);

  /// After outcomes that are all known: the connection works.
  void answered();
  /// After an unknown outcome: the next `open` makes a new connection where the old one may be the
  /// cause.
  void failed(const Error& unknown);

 private:
  Lease& lease_;
  const std::unique_ptr<Sink> sink_;
  PipelineMetrics& metrics_;
  SharedState& shared_;
  Recovery& recovery_;
  RateLimiter limiter_;
  Pace pace_;
  bool open_ = false;
  bool notices_end_ = true;       // until the sink says that it does not
  bool delivery_failed_ = false;  // only a delivery, not a new connection, clears it
};

}  // namespace relay
