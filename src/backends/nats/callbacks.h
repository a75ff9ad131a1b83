#pragma once

#include <cstdint>
#include <memory>

#include "backends/nats/ledger.h"

namespace relay::nats {

/// The library's threads may call back when the connection that they serve is long gone. So they
/// are given a number, and what is behind the number is looked up: nothing, once it was withdrawn.
/// Any thread.
std::uintptr_t register_ledger(const std::shared_ptr<Ledger>& ledger);
void withdraw_ledger(std::uintptr_t id);
std::shared_ptr<Ledger> find_ledger(std::uintptr_t id);

}  // namespace relay::nats
