#include "cli/cli.h"
#include "connector/registry.h"

int main(int argc, char** argv) {
  return relay::cli::run_program(argc, argv, &relay::register_backends);
}
