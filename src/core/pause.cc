#include "core/pause.h"

#include "core/mutex.h"

namespace relay {

bool pause(Deadline until, std::stop_token stop) {
  Mutex mutex;
  Condition changed;
  const MutexLock lock(mutex);
  changed.wait_until(mutex, stop, until.at(), [] { return false; });
  return !stop.stop_requested();
}

}  // namespace relay
