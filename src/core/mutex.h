#pragma once

#include <condition_variable>
#include <mutex>

/// What a mutex guards, in a form that clang checks (-Wthread-safety). Other compilers ignore it.
/// Semantics: https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#if defined(__clang__)
#define RELAY_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define RELAY_THREAD_ANNOTATION(x)
#endif

/// This member is read and written with that mutex held.
#define RELAY_GUARDED_BY(mutex) RELAY_THREAD_ANNOTATION(guarded_by(mutex))
/// The caller holds the mutex.
#define RELAY_REQUIRES(...) RELAY_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
/// The caller does not hold the mutex.
#define RELAY_EXCLUDES(...) RELAY_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))

namespace relay {

/// A std::mutex that the compiler knows about.
class RELAY_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  void lock() RELAY_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void unlock() RELAY_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  bool try_lock() RELAY_THREAD_ANNOTATION(try_acquire_capability(true)) {
    return mutex_.try_lock();
  }

 private:
  std::mutex mutex_;
};

/// Holds a mutex from here to the end of the block.
class RELAY_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) RELAY_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  /// Takes over a mutex that this thread holds already.
  MutexLock(Mutex& mutex, std::adopt_lock_t) RELAY_REQUIRES(mutex) : mutex_(mutex) {}
  ~MutexLock() RELAY_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// Lets go of a mutex that this thread holds, from here to the end of the block.
class RELAY_THREAD_ANNOTATION(scoped_lockable) MutexUnlock {
 public:
  explicit MutexUnlock(Mutex& mutex) RELAY_THREAD_ANNOTATION(release_capability(mutex))
      : mutex_(mutex) {
    mutex_.unlock();
  }
  // Clang calls the end of a scope a release, and takes the mutex back there.
  ~MutexUnlock() RELAY_THREAD_ANNOTATION(release_capability()) { mutex_.lock(); }
  MutexUnlock(const MutexUnlock&) = delete;
  MutexUnlock& operator=(const MutexUnlock&) = delete;

 private:
  Mutex& mutex_;
};

/// A condition to wait for with a `Mutex` held: `changed.wait(mutex)`, `wait_until(mutex, ...)`,
/// `wait(mutex, stop_token, predicate)`. The predicate is a lambda with RELAY_REQUIRES(mutex).
using Condition = std::condition_variable_any;

}  // namespace relay
