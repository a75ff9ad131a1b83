#pragma once

namespace relay {
class Registry;
}

namespace relay::cli {

/// The program `pgtrickle-relay`, with the backends that `add_backends` adds to the registry.
/// Returns its exit code: 0 ok, 1 failed, 2 usage, 3 invalid configuration.
int run_program(int argc, char** argv, void (*add_backends)(Registry&));

}  // namespace relay::cli
