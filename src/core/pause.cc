#include "core/pause.h"

#include <condition_variable>
#include <mutex>

namespace relay {

// Unlike `Condition`, a std::condition_variable allocates nothing.
bool pause(Deadline until, std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable stopped;
  const std::stop_callback wake(stop, [&] {
    const std::lock_guard lock(mutex);
    stopped.notify_all();
  });
  std::unique_lock lock(mutex);
  stopped.wait_until(lock, until.at(), [&] { return stop.stop_requested(); });
  return !stop.stop_requested();
}

}  // namespace relay
