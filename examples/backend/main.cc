#include "cli/cli.h"
#include "connector/registry.h"
#include "lineq/backend.h"

// The relay's program, with the backends that it has and one of ours.
int main(int argc, char** argv) {
  return relay::cli::run_program(argc, argv, [](relay::Registry& registry) {
    relay::register_backends(registry);
    relay::lineq::register_backend(registry);
  });
}
