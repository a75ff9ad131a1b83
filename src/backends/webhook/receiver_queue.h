#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <stop_token>
#include <vector>

#include "backends/webhook/receiver_request.h"
#include "connector/source.h"
#include "core/deadline.h"
#include "core/mutex.h"

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
  /// Its client waits no longer. A request that the pipeline has not taken yet is forgotten (true).
  bool abandon(std::int64_t number);

  /// All that waits, up to the limits, as soon as something does.
  std::vector<Taken> take(const ReadLimits& limits, Deadline deadline, std::stop_token stop);
  /// Everything up to this number is settled.
  void settle(std::int64_t number, SteadyClock::time_point now);
  /// Requests that wait for their answer.
  std::int64_t held() const;
  /// Forgets all requests, and refuses new ones.
  void close();
  /// Accepts requests again.
  void open();

 private:
  void give_back_locked(std::size_t bytes) RELAY_REQUIRES(mutex_);

  const Bounds bounds_;
  mutable Mutex mutex_;
  Condition arrived_;
  std::deque<Taken> waiting_ RELAY_GUARDED_BY(mutex_);
  // Bytes, by number, of every request that waits or was taken.
  std::map<std::int64_t, std::size_t> unsettled_ RELAY_GUARDED_BY(mutex_);
  std::size_t bytes_ RELAY_GUARDED_BY(mutex_) = 0;
  std::int64_t last_ RELAY_GUARDED_BY(mutex_) = 0;
  std::int64_t last_taken_ RELAY_GUARDED_BY(mutex_) = 0;
  // When a request that was taken was settled last, or the first one was taken.
  SteadyClock::time_point progress_ RELAY_GUARDED_BY(mutex_){};
  bool closed_ RELAY_GUARDED_BY(mutex_) = false;
  // A request has waited in vain, and `take` was not called since.
  bool waited_in_vain_ RELAY_GUARDED_BY(mutex_) = false;
};

}  // namespace relay::webhook
