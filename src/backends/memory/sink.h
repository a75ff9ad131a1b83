#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/memory/options.h"
#include "connector/sink.h"
#include "core/mutex.h"

namespace relay::memory {

/// Takes every message and keeps none: counts them, and remembers the ids of the last ones. For
/// tests and trials; what it took is gone.
class MemorySink final : public Sink {
 public:
  explicit MemorySink(Options options) : options_(std::move(options)) {}

  Result<void> open(std::stop_token) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline,
                               std::stop_token) override;
  void close() override {}
  std::optional<EndReport> report() const override;

 private:
  void take(const Message& message) RELAY_REQUIRES(mutex_);

  const Options options_;
  bool warned_ = false;
  mutable Mutex mutex_;
  std::size_t messages_ RELAY_GUARDED_BY(mutex_) = 0;
  std::size_t bytes_ RELAY_GUARDED_BY(mutex_) = 0;
  std::deque<std::string> latest_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::memory
