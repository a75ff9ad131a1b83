#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "connector/source.h"
#include "core/error.h"
#include "core/lease.h"
#include "pipeline/seal.h"

namespace relay {

/// What a pipeline does with a message that the broker rejects.
enum class OnReject { dead_letter, park_key, stop, skip };

/// What makes a pipeline what it is.
struct PipelineSpec {
  std::string name;
  ReadLimits limits;
  /// Largest batch in bytes; the queue holds half as much again.
  std::size_t batch_bytes = 8u << 20;
  std::chrono::milliseconds retry_min{100};
  std::chrono::milliseconds retry_max{30000};
  OnReject on_reject = OnReject::dead_letter;
  bool stops_at_failure = false;  ///< SinkType::stops_at_failure
  bool ordered = true;            ///< false: messages of one key may overtake each other
  double rate_limit = 0;          ///< messages a second; 0: no limit
  /// The source announces new work from outside, so the threads may end while there is none.
  bool may_sleep = false;
  std::chrono::milliseconds sleep_after{60000};
  Seal seal;  ///< keeps the configuration's secrets out of dead letters
};

/// A deliberate second delivery of a range of ids.
struct ReplayRequest {
  std::int64_t id = 0;
  std::int64_t from = 0;
  std::int64_t to = 0;
  int number = 1;  ///< k of the ":r<k>" behind each message id
};

/// What a pipeline asks of its owner, and tells it. Called from the pipeline's threads; must not
/// block.
struct PipelineHooks {
  /// While it does not hold, another instance may own the pipeline: nothing is delivered, and the
  /// sink's connections end with it.
  Lease* lease = &Lease::endless();
  std::function<void(const ReplayRequest&, const std::optional<Error>&)> replay_finished =
      [](const ReplayRequest&, const std::optional<Error>&) {};
  /// The source was opened: what it learns from its server, such as `watched_sequence`, is known.
  std::function<void()> source_opened = [] {};
};

}  // namespace relay
