#pragma once

#include <stop_token>

#include "core/deadline.h"

namespace relay {

/// Waits until then, or until a stop is asked for. False: a stop was asked for. Any thread.
bool pause(Deadline until, std::stop_token stop);

}  // namespace relay
