#include "core/wakeup.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace relay {

Wakeup::Wakeup() {
  if (::pipe(ends_) != 0) {
    ends_[0] = ends_[1] = -1;
    return;
  }
  for (const int end : ends_) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
}

Wakeup::~Wakeup() {
  for (const int end : ends_) {
    if (end >= 0) ::close(end);
  }
}

void Wakeup::notify() const noexcept {
  const int saved = errno;
  // A full pipe is readable already.
  [[maybe_unused]] const auto written = ::write(ends_[1], "", 1);
  errno = saved;
}

void Wakeup::drain() const noexcept {
  char ignored[64];
  while (::read(ends_[0], ignored, sizeof ignored) == sizeof ignored) {
  }
}

}  // namespace relay
