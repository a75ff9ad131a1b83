#include "http/server/lane_service.h"

#include <utility>

#include "core/deadline.h"
#include "core/log.h"

namespace relay::http {

namespace {

// A client that asks while its lane is full is slowed down: it could keep the server's thread busy
// otherwise.
constexpr std::chrono::milliseconds kBeforeBusy{250};
constexpr std::int64_t kNoJob = 0;

SharedAnswer share(Answer answer) {
  answer.headers.emplace(answer.headers.begin(), "Cache-Control", "no-store");
  return std::make_shared<const Answer>(std::move(answer));
}

SharedAnswer plain_answer(int status, std::string_view text) {
  Answer answer;
  answer.status = status;
  answer.body = std::string(text) + "\n";
  return share(std::move(answer));
}

SharedAnswer busy_answer(Answer answer) {
  answer.headers.emplace_back("Retry-After", "1");
  return share(std::move(answer));
}

std::size_t count_workers(const std::vector<Lane>& lanes) {
  std::size_t count = 0;
  for (const Lane& lane : lanes) count += lane.workers;
  return count;
}

}  // namespace

/// A request, or several for the same path, and the clients that wait for its answer. Of the
/// server's thread, except `request` while a worker has it.
struct LaneService::Job {
  struct Client {
    PendingAnswer pending;
    std::int64_t ticket;
  };

  Job(Queue& of, DecodedRequest given, Deadline begun_by)
      : queue(of), request(std::move(given)), path(request.path), deadline(begun_by) {}

  Queue& queue;
  const DecodedRequest request;
  const std::string path;
  Deadline deadline;
  std::vector<Client> clients;
};

LaneService::LaneService(LaneRules rules, LaneLimits limits)
    : rules_(std::move(rules)), limits_(limits), busy_(busy_answer(rules_.busy)) {
  for (const Lane& lane : rules_.lanes) queues_.emplace_back(lane);
  workers_.start(count_workers(rules_.lanes));
}

LaneService::~LaneService() = default;

void LaneService::begin(IncomingRequest&& raw, PendingAnswer pending) {
  DecodedRequest request = decoded(std::move(raw));
  const auto lane = rules_.lane_of(request);
  if (!lane) return pending.send(call_handler(request));
  Queue& queue = queues_.at(*lane);
  std::shared_ptr<Job> job = queue.find(request.path);
  if (job) return wait_for(job, std::move(pending));
  job = std::make_shared<Job>(queue, std::move(request), Deadline::after(limits_.worker));
  if (!queue.add(job)) return pending.allow(kBeforeBusy, kNoJob);
  wait_for(job, std::move(pending));
  begin_jobs(queue);
}

void LaneService::wait_for(const std::shared_ptr<Job>& job, PendingAnswer pending) {
  const std::int64_t ticket = ++last_ticket_;
  waiting_.emplace(ticket, job);
  pending.allow(job->deadline.left(), ticket);
  job->clients.push_back({std::move(pending), ticket});
}

SharedAnswer LaneService::late(std::int64_t ticket) {
  if (const auto found = waiting_.find(ticket); found != waiting_.end()) {
    found->second->queue.withdraw(found->second);
    waiting_.erase(found);
  }
  return busy_;
}

/// Hands waiting jobs to free workers; each comes back to the server's thread with its answer.
void LaneService::begin_jobs(Queue& queue) {
  while (auto job = queue.begin()) {
    for (const Job::Client& client : job->clients) {
      client.pending.allow(limits_.answer, client.ticket);
    }
    workers_.post([this, job = std::move(job)] {
      server_->post([this, job, answer = call_handler(job->request)] { finish(*job, answer); });
    });
  }
}

void LaneService::finish(Job& job, const SharedAnswer& answer) {
  for (const Job::Client& client : job.clients) {
    waiting_.erase(client.ticket);
    client.pending.send(answer);
  }
  job.queue.finished();
  begin_jobs(job.queue);
}

SharedAnswer LaneService::call_handler(const DecodedRequest& request) {
  if (stopping_) return plain_answer(503, "stopping");
  try {
    return share(rules_.handler(request));
  } catch (const std::exception& exception) {
    log::error("http", "", "{} {}: {}", request.method, request.path, exception.what());
    return plain_answer(500, "internal error");
  }
}

SharedAnswer LaneService::refusal(const Problem& problem) {
  switch (problem.kind) {
    case Problem::Kind::malformed:
    case Problem::Kind::cut_off:
      return plain_answer(400, problem.detail);
    case Problem::Kind::head_too_large:
      return plain_answer(431, problem.detail);
    case Problem::Kind::body_too_large:
      return plain_answer(413, problem.detail);
    case Problem::Kind::no_room:
    case Problem::Kind::too_many_connections:
    case Problem::Kind::stopping:
      return plain_answer(503, problem.detail);
    case Problem::Kind::too_slow:
      break;
  }
  return nullptr;
}

}  // namespace relay::http
