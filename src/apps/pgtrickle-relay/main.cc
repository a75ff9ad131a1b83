#include <malloc.h>

#include "cli/cli.h"

namespace {

/// Batches come and go by the megabyte. Giving their memory back to the system each time, only to
/// fault it in again, costs as much as encoding them.
void keep_memory_for_batches() {
  constexpr int kKept = 16 << 20;  // bytes
  ::mallopt(M_TRIM_THRESHOLD, kKept);
  ::mallopt(M_MMAP_THRESHOLD, kKept);
}

}  // namespace

int main(int argc, char** argv) {
  keep_memory_for_batches();
  return relay::cli::run_program(argc, argv);
}
