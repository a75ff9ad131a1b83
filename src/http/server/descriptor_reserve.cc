#include "http/server/descriptor_reserve.h"

#include <fcntl.h>
#include <unistd.h>

namespace relay::http {

DescriptorReserve::DescriptorReserve(std::size_t size) : size_(size) {
  held_.reserve(size_);
  refill();
}

DescriptorReserve::~DescriptorReserve() {
  while (release_one()) {
  }
}

bool DescriptorReserve::release_one() {
  if (held_.empty()) return false;
  ::close(held_.back());
  held_.pop_back();
  return true;
}

void DescriptorReserve::refill() {
  while (held_.size() < size_) {
    const int descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return;
    held_.push_back(descriptor);
  }
}

}  // namespace relay::http
