#include "core/pause.h"

#include <condition_variable>
#include <mutex>

namespace relay {

bool pause(Deadline until, std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  changed.wait_until(lock, stop, until.at(), [] { return false; });
  return !stop.stop_requested();
}

}  // namespace relay
