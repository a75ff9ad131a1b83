#pragma once

namespace relay {

/// Wakes a thread that waits in poll(2): its descriptor is readable from `notify` until `drain`. A
/// pipe, because every POSIX system has one.
class Wakeup {
 public:
  Wakeup();
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  /// For poll(2), with POLLIN. -1, which poll(2) ignores, if the process had no descriptors left.
  int fd() const { return ends_[0]; }
  /// Any thread, and signal handlers. Many calls before a `drain` wake once.
  void notify() const noexcept;
  /// The waiting thread, before it looks at what it was woken for.
  void drain() const noexcept;

 private:
  int ends_[2] = {-1, -1};
};

}  // namespace relay
