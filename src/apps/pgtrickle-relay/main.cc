#include "cli/cli.h"

int main(int argc, char** argv) { return relay::cli::run_program(argc, argv); }
