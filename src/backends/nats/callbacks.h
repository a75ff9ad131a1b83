#pragma once

#include <cstdint>
#include <memory>

#include "backends/nats/outcomes.h"

namespace relay::nats {

/// The library's threads may call back when the connection that they serve is long gone. So they
/// are given a number, and what is behind the number is looked up: nothing, once it was withdrawn.
/// Any thread.
std::uintptr_t register_outcomes(const std::shared_ptr<Outcomes>& outcomes);
void withdraw_outcomes(std::uintptr_t id);
std::shared_ptr<Outcomes> find_outcomes(std::uintptr_t id);

}  // namespace relay::nats
