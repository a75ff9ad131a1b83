// The shortest way from an outbox to standard output: no position, no encoding.
//   limit_stdout POSTGRES_URL OUTBOX_TABLE BATCH
#include "outbox_reader.h"

int main(int argc, char** argv) {
  if (argc != 4) bench::die("usage", "limit_stdout POSTGRES_URL OUTBOX_TABLE BATCH");
  const bench::Connection connection = bench::connect(argv[1]);
  static char buffer[1 << 18];
  std::setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  bench::read_outbox(connection.get(), argv[2], std::atoi(argv[3]),
                     [](const char*, const char* payload, int length) {
                       std::fwrite(payload, 1, static_cast<std::size_t>(length), stdout);
                       std::putc('\n', stdout);
                     });
  return std::fflush(stdout) == 0 ? 0 : 1;
}
