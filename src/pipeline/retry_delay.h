#pragma once

#include <chrono>

#include "core/backoff.h"
#include "core/error.h"

namespace relay {

/// The longest wait before a server that cannot be reached is tried again, also where `retry_max`
/// is more: a server that was away for long is used again soon after its return.
inline constexpr std::chrono::milliseconds kReconnectMax{2000};

/// How long to wait after an error before the next try. Takes the next step of the back-off. Pure.
std::chrono::milliseconds retry_delay(const Error& error, Backoff& backoff);

}  // namespace relay
