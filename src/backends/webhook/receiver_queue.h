#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include "backends/webhook/receiver_request.h"
#include "connector/source.h"
#include "core/deadline.h"

namespace relay::webhook {

/// The requests between the server, which brings them, and the pipeline, which settles them. Each
/// has a number, rising in the order in which they are taken. Bounds what is held: bytes are
/// reserved while a body arrives, and given back when its request is settled or refused. Any
/// thread.
class RequestQueue {
 public:
  struct Bounds {
    std::size_t requests = 10000;
    std::size_t bytes = 64u << 20;
    std::chrono::milliseconds patience{30000};  ///< without progress, nothing more is taken in
  };
  struct Taken {
    std::int64_t number = 0;
    ReceivedRequest request;
  };

  explicit RequestQueue(Bounds bounds) : bounds_(bounds) {}

  /// Why there is no room for another request, or that there is.
  enum class Room { free, full, stalled, closed };
  Room room(SteadyClock::time_point now) const;
  /// Room for so many more bytes of a body that is arriving.
  bool reserve(std::size_t bytes);
  void give_back(std::size_t bytes);

  /// Hands a request over, with the bytes that were reserved for it. Its number; nothing, and
  /// nothing done, where the queue is closed.
  std::optional<std::int64_t> add(ReceivedRequest&& request, std::size_t reserved);
  /// Its client waits no longer. One that nobody took yet is forgotten (true).
  bool abandon(std::int64_t number);

  /// All that waits, up to the limits, as soon as something does.
  std::vector<Taken> take(const ReadLimits& limits, Deadline deadline, std::stop_token stop);
  /// Everything up to this number is settled.
  void settle(std::int64_t number, SteadyClock::time_point now);
  /// Requests that wait for their answer.
  std::int64_t held() const;
  /// Nothing that is unsettled will be, and nothing more is taken in.
  void close();
  /// Something is taken in again.
  void open();

 private:
  void give_back_locked(std::size_t bytes);

  const Bounds bounds_;
  mutable std::mutex mutex_;
  std::condition_variable_any arrived_;
  std::deque<Taken> waiting_;
  std::map<std::int64_t, std::size_t> unsettled_;  // bytes, of all that wait or were taken
  std::size_t bytes_ = 0;
  std::int64_t last_ = 0;
  std::int64_t last_taken_ = 0;
  SteadyClock::time_point progress_{};  // of what was taken
  bool closed_ = false;
  bool nobody_takes_ = false;  // a request waited in vain, and none was asked for since
};

}  // namespace relay::webhook
