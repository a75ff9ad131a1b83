#include "backends/nats/callbacks.h"

#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace relay::nats {

namespace {

struct RegisteredOutcomes {
  std::shared_mutex mutex;
  std::uintptr_t last_id = 0;
  std::unordered_map<std::uintptr_t, std::weak_ptr<Outcomes>> by_id;
};

/// Never destroyed: a thread of the library may outlive `main`.
RegisteredOutcomes& registered() {
  static auto* const all = new RegisteredOutcomes;
  return *all;
}

}  // namespace

std::uintptr_t register_outcomes(const std::shared_ptr<Outcomes>& outcomes) {
  RegisteredOutcomes& all = registered();
  const std::unique_lock lock(all.mutex);
  const std::uintptr_t id = ++all.last_id;
  all.by_id.emplace(id, outcomes);
  return id;
}

void withdraw_outcomes(std::uintptr_t id) {
  RegisteredOutcomes& all = registered();
  const std::unique_lock lock(all.mutex);
  all.by_id.erase(id);
}

std::shared_ptr<Outcomes> find_outcomes(std::uintptr_t id) {
  RegisteredOutcomes& all = registered();
  const std::shared_lock lock(all.mutex);
  const auto found = all.by_id.find(id);
  return found == all.by_id.end() ? nullptr : found->second.lock();
}

}  // namespace relay::nats
