#include "core/stop_event.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace relay {

void StopEvent::Signal::operator()() const noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
}

StopEvent::StopEvent(std::stop_token stop)
    : stop_(std::move(stop)),
      fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)},
      callback_(stop_, Signal{fd_.value}) {}

StopEvent::Descriptor::~Descriptor() {
  ::close(value);
}

}  // namespace relay
