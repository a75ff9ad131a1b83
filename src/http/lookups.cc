#include "http/lookups.h"

#include <netdb.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <system_error>
#include <thread>

#include "http/address_guard.h"

namespace relay::http {

namespace {

constexpr auto kKept = std::chrono::minutes(1);
constexpr std::size_t kMostKept = 1000;

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

}  // namespace

void Lookups::resolve(const std::string& host, Lookup& lookup) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* first = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &first) == 0) {
    const std::unique_ptr<addrinfo, FreeAddresses> list(first);
    for (const addrinfo* each = list.get(); each; each = each->ai_next) {
      std::string text = address_text(*each->ai_addr);
      if (is_public_address(*each->ai_addr)) {
        lookup.found.usable.push_back(std::move(text));
      } else {
        lookup.found.refused = std::move(text);
      }
    }
  }
  lookup.found.at = SteadyClock::now();
  lookup.done.store(true, std::memory_order_release);
}

const Lookups::Found* Lookups::find(const std::string& host) {
  const auto known = lookups_.find(host);
  if (known != lookups_.end()) {
    const Lookup& lookup = *known->second;
    if (!lookup.done.load(std::memory_order_acquire)) return nullptr;
    if (SteadyClock::now() - lookup.found.at < kKept) return &lookup.found;
  }
  forget_old();
  auto lookup = std::make_shared<Lookup>();
  lookups_[host] = lookup;
  // The system's resolver cannot be interrupted: the thread may outlive this object.
  try {
    std::thread([host, lookup, wakeup = wakeup_] {
      resolve(host, *lookup);
      wakeup->notify();
    }).detach();
  } catch (const std::system_error&) {
    lookups_.erase(host);  // no thread to be had now: the next call tries again
  }
  return nullptr;
}

std::string Lookups::choose(const std::string& host, const Found& found) const {
  if (found.usable.empty()) return {};
  const auto known = lookups_.find(host);
  const std::size_t turn = known == lookups_.end() ? 0 : known->second->turn;
  return found.usable[turn % found.usable.size()];
}

void Lookups::failed(const std::string& host) {
  const auto known = lookups_.find(host);
  if (known == lookups_.end() || !known->second->done.load(std::memory_order_acquire)) return;
  if (known->second->found.usable.empty()) {
    lookups_.erase(known);
  } else {
    ++known->second->turn;
  }
}

void Lookups::forget_old() {
  if (lookups_.size() < kMostKept) return;
  const auto now = SteadyClock::now();
  std::erase_if(lookups_, [&](const auto& entry) {
    const Lookup& lookup = *entry.second;
    return lookup.done.load(std::memory_order_acquire) && now - lookup.found.at >= kKept;
  });
}

}  // namespace relay::http
