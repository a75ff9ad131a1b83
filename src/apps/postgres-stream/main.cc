#include "connector/registry.h"
#include "stream_program/program.h"

int main(int argc, char** argv) {
  return relay::stream_program::run_program(argc, argv, &relay::register_backends);
}
