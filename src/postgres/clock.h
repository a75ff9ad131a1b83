#pragma once

#include <chrono>

namespace relay::postgres {

/// A time as PostgreSQL keeps it, in microseconds.
using Time = std::chrono::sys_time<std::chrono::microseconds>;

/// The time from which PostgreSQL counts in its binary forms and protocols
/// (https://www.postgresql.org/docs/current/datatype-datetime.html).
inline constexpr Time kEpoch = std::chrono::sys_days(std::chrono::year{2000} / 1 / 1);

}  // namespace relay::postgres
