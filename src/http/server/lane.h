#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>

namespace relay::http {

/// Requests of one kind, which share a few workers: however many there are, and however long each
/// takes, requests of another lane do not wait for them.
struct Lane {
  std::size_t workers = 1;
  std::size_t waiting = 16;  ///< most jobs that wait for a worker; one more is refused
  /// The answer depends on the path alone: requests for one path that wait at the same time are one
  /// job.
  bool shared = false;
};

/// Decides which jobs of a lane run, wait, or are refused. Pure. A `Job` has a member `path`.
template <class Job>
class LaneQueue {
 public:
  explicit LaneQueue(const Lane& lane) : lane_(lane) {}

  /// The job that waits and whose answer will do for this path as well; null: there is none. A job
  /// that has begun may have read what changed since.
  std::shared_ptr<Job> find(const std::string& path) const {
    if (!lane_.shared) return nullptr;
    for (const auto& job : waiting_) {
      if (job->path == path) return job;
    }
    return nullptr;
  }

  /// False: too many wait already.
  bool add(std::shared_ptr<Job> job) {
    if (at_work_ == lane_.workers && waiting_.size() >= lane_.waiting) return false;
    waiting_.push_back(std::move(job));
    return true;
  }

  /// The next job for a worker; null: none waits, or all workers are busy. `finished` follows.
  std::shared_ptr<Job> begin() {
    if (waiting_.empty() || at_work_ == lane_.workers) return nullptr;
    auto job = std::move(waiting_.front());
    waiting_.pop_front();
    ++at_work_;
    return job;
  }
  void finished() { --at_work_; }

  /// Takes back a job that waits. False: it does not wait any more.
  bool withdraw(const std::shared_ptr<Job>& job) { return std::erase(waiting_, job) > 0; }

 private:
  const Lane lane_;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::size_t at_work_ = 0;
};

}  // namespace relay::http
