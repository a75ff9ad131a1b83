#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "http/server/decoded_request.h"
#include "http/server/lane.h"
#include "http/server/server.h"
#include "http/server/service.h"
#include "http/server/workers.h"

namespace relay::http {

/// Answers one request. An exception becomes status 500.
using Handler = std::function<Answer(const DecodedRequest&)>;

/// Who answers, and how requests are kept from waiting for each other.
struct LaneRules {
  Handler handler;
  std::vector<Lane> lanes = {Lane{}};
  /// The lane whose worker calls the handler, by its index. None: the server's thread calls it, so
  /// it must neither wait nor compute. Called on that thread.
  std::function<std::optional<std::size_t>(const DecodedRequest&)> lane_of =
      [](const DecodedRequest&) { return std::optional<std::size_t>(0); };
  /// For a request that finds its lane full, or gets no answer in time. Retry-After is added.
  Answer busy{503, "text/plain; charset=utf-8", "busy\n", {}};
};

struct LaneLimits {
  std::chrono::milliseconds worker{1'000};  ///< until a worker begins with a request
  std::chrono::milliseconds answer{5'000};  ///< until it has answered
};

/// Answers requests by a handler that may wait: workers call it, a few for each lane. Refusals are
/// plain text; a client that is too slow is not answered. All answers forbid caches to keep them.
class LaneService : public Service {
 public:
  LaneService(LaneRules rules, LaneLimits limits);
  /// Joins.
  ~LaneService() override;

  /// The server that it serves. Before the server starts.
  void serve_on(Server& server) { server_ = &server; }
  /// Waits for handlers that are answering. When the server has stopped, and exists still.
  void join() { workers_.join(); }

  void begin(IncomingRequest&& request, PendingAnswer pending) override;
  SharedAnswer late(std::int64_t ticket) override;
  SharedAnswer refusal(const Problem& problem) override;
  void stopping() override { stopping_ = true; }

 private:
  struct Job;
  using Queue = LaneQueue<Job>;

  void wait_for(const std::shared_ptr<Job>& job, PendingAnswer pending);
  void begin_jobs(Queue& queue);
  void finish(Job& job, const SharedAnswer& answer);
  SharedAnswer call_handler(const DecodedRequest& request);

  const LaneRules rules_;
  const LaneLimits limits_;
  const SharedAnswer busy_;
  Server* server_ = nullptr;
  std::atomic<bool> stopping_{false};
  // Of the server's thread.
  std::deque<Queue> queues_;
  std::map<std::int64_t, std::shared_ptr<Job>> waiting_;  // jobs by the tickets of their clients
  std::int64_t last_ticket_ = 0;
  Workers workers_;
};

}  // namespace relay::http
