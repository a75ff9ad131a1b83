#include "backends/rabbitmq/depth.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "backends/rabbitmq/queue.h"

namespace relay::rabbitmq {

namespace {

constexpr std::chrono::seconds kEvery{1};
constexpr std::chrono::seconds kAfterFailure{10};
/// Retention deletes whole segments of a stream, seldom.
constexpr std::chrono::seconds kFirstOffsetEvery{30};

}  // namespace

std::optional<std::int64_t> QueueDepth::ready() {
  if (SteadyClock::now() >= ask_after_) {
    count_ = ask();
    ask_after_ = SteadyClock::now() + (count_ ? kEvery : kAfterFailure);
  }
  return count_;
}

std::optional<std::int64_t> QueueDepth::ask() {
  if (!connection_) {
    auto opened = open_any(options_, endpoints_, {});
    if (!opened) return std::nullopt;
    connection_ = std::move(*opened);
  }
  const auto count = connection_->count_ready(queue_);
  if (count && *count) return **count;
  connection_.reset();
  return std::nullopt;
}

std::optional<std::int64_t> QueueDepth::of_stream_from(std::int64_t offset) {
  const auto count = ready();
  if (!count || *count == 0) return count;
  if (SteadyClock::now() >= first_after_) {
    first_ = ask_first();
    first_after_ = SteadyClock::now() + kFirstOffsetEvery;
  }
  if (!first_) return std::nullopt;
  return std::max<std::int64_t>(*count - std::max<std::int64_t>(offset - *first_, 0), 0);
}

std::optional<std::int64_t> QueueDepth::ask_first() {
  auto connection = open_any(options_, endpoints_, {});
  if (!connection || !(*connection)->consume(queue_, 1, StreamOffset{})) return std::nullopt;
  return first_offset(**connection);
}

}  // namespace relay::rabbitmq
