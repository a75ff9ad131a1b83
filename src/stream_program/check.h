#pragma once

#include "connector/registry.h"
#include "stream_program/configuration.h"

namespace relay::stream_program {

/// Looks at the database and the sink of every stream, prints every problem, and changes nothing.
/// Returns the exit code.
int check(const Configuration& configuration, const Registry& registry, bool json);

}  // namespace relay::stream_program
