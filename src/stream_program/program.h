#pragma once

#include "connector/registry.h"

namespace relay::stream_program {

/// The whole program `postgres-stream`: reads the command line and the configuration, and runs the
/// streams or checks them. Returns the exit code. No exception leaves it.
int run_program(int argc, char** argv, void (*add_backends)(Registry&));

}  // namespace relay::stream_program
