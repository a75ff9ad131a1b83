#pragma once

#include <cstddef>
#include <vector>

namespace relay::http {

/// Descriptors that are held open for a process that has run out of them. One thread at a time.
class DescriptorReserve {
 public:
  explicit DescriptorReserve(std::size_t size);
  ~DescriptorReserve();
  DescriptorReserve(const DescriptorReserve&) = delete;
  DescriptorReserve& operator=(const DescriptorReserve&) = delete;

  /// Closes one, so that the next call that needs a descriptor finds it. False: none is left.
  bool release_one();
  /// Opens again what was released, as far as there are descriptors.
  void refill();

 private:
  const std::size_t size_;
  std::vector<int> held_;
};

}  // namespace relay::http
