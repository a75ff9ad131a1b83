#pragma once

namespace relay::cli {

/// The program `pgtrickle-relay`. Returns its exit code: 0 ok, 1 failed, 2 usage, 3 invalid
/// configuration.
int run_program(int argc, char** argv);

}  // namespace relay::cli
