#pragma once

#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "connector/end_report.h"
#include "core/error.h"
#include "core/mutex.h"
#include "postgres/pool.h"

namespace relay::stream_program {

/// What the database knows of a stream: subscriptions that make no events, and how much there is of
/// what an operator watches.
struct StreamFindings {
  std::vector<Error> problems;  ///< the code of each names its cause
  std::vector<EndReport::Number> numbers;
};

/// Asks the database every few seconds, on a thread of its own: the answer may take long, and the
/// lease must not wait for it. While the database does not answer, what was found last is kept.
class StreamWatch {
 public:
  /// `stream` is its id. The pool outlives this object.
  StreamWatch(postgres::Pool& pool, std::string stream);

  /// Any thread.
  StreamFindings found() const;

 private:
  void run(std::stop_token stop);
  Result<StreamFindings> ask(std::stop_token stop);

  postgres::Pool& pool_;
  const std::string stream_;
  mutable Mutex mutex_;
  StreamFindings found_ RELAY_GUARDED_BY(mutex_);
  std::jthread thread_;
};

}  // namespace relay::stream_program
