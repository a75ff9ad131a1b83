#include "backends/memory/sink.h"

#include "core/log.h"

namespace relay::memory {

Result<void> MemorySink::open(std::stop_token) {
  if (!warned_) {
    log::warn("memory_sink", options_.pipeline,
              "messages are counted and dropped: the sink memory is for tests");
    warned_ = true;
  }
  return {};
}

std::vector<Outcome> MemorySink::deliver(std::span<const Message> messages, Deadline,
                                         std::stop_token) {
  if (!lease().holds()) return {messages.size(), Outcome::unknown(share(lease_over()))};
  const MutexLock lock(mutex_);
  for (const Message& message : messages) take(message);
  return {messages.size(), Outcome::delivered()};
}

void MemorySink::take(const Message& message) {
  ++messages_;
  bytes_ += message.body.size();
  if (options_.keep == 0) return;
  if (latest_.size() >= static_cast<std::size_t>(options_.keep)) latest_.pop_front();
  latest_.emplace_back(message.id);
}

std::optional<EndReport> MemorySink::report() const {
  const MutexLock lock(mutex_);
  EndReport report;
  report.state = "counting";
  report.numbers = {{"memory_messages", "Messages that the sink memory has counted and dropped",
                     static_cast<double>(messages_)},
                    {"memory_bytes", "Bytes of their bodies", static_cast<double>(bytes_)}};
  report.latest.assign(latest_.begin(), latest_.end());
  return report;
}

}  // namespace relay::memory
