#include "backends/rabbitmq/tags.h"

namespace relay::rabbitmq {

std::int64_t Tags::add(std::uint64_t tag) {
  open_.push_back({++last_record_, tag});
  return last_record_;
}

std::optional<std::uint64_t> Tags::settle(std::int64_t record) {
  std::optional<std::uint64_t> tag;
  while (!open_.empty() && open_.front().record <= record) {
    tag = open_.front().tag;
    open_.pop_front();
  }
  return tag;
}

void Tags::forget() {
  open_.clear();
}

}  // namespace relay::rabbitmq
