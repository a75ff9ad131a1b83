#include "backends/nats/callbacks.h"

#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace relay::nats {

namespace {

struct Ledgers {
  std::shared_mutex mutex;
  std::uintptr_t last_id = 0;
  std::unordered_map<std::uintptr_t, std::weak_ptr<Ledger>> by_id;
};

/// Never destroyed: a thread of the library may outlive `main`.
Ledgers& ledgers() {
  static auto* const all = new Ledgers;
  return *all;
}

}  // namespace

std::uintptr_t register_ledger(const std::shared_ptr<Ledger>& ledger) {
  Ledgers& all = ledgers();
  const std::unique_lock lock(all.mutex);
  const std::uintptr_t id = ++all.last_id;
  all.by_id.emplace(id, ledger);
  return id;
}

void withdraw_ledger(std::uintptr_t id) {
  Ledgers& all = ledgers();
  const std::unique_lock lock(all.mutex);
  all.by_id.erase(id);
}

std::shared_ptr<Ledger> find_ledger(std::uintptr_t id) {
  Ledgers& all = ledgers();
  const std::shared_lock lock(all.mutex);
  const auto found = all.by_id.find(id);
  return found == all.by_id.end() ? nullptr : found->second.lock();
}

}  // namespace relay::nats
