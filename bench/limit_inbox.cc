// The shortest way from an outbox into an inbox: one INSERT a batch, while the next batch is read.
//   limit_inbox POSTGRES_URL OUTBOX_TABLE BATCH INBOX_URL INBOX_TABLE ID_PREFIX
// INBOX_TABLE is in the schema pgtrickle.
#include "inbox_writer.h"

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_inbox.cc");
  const bench::Connection connection = bench::connect(argv[1]);
  const int batch = std::atoi(argv[3]);
  bench::InboxWriter writer(argv[4], argv[5], batch);
  bench::read_outbox(
      connection.get(), argv[2], batch, [&](const char* id, const char* payload, int length) {
        writer.add(std::string(argv[6]) + ":" + id, id, {payload, static_cast<std::size_t>(length)},
                   "{\"pgtrickle-stream-table\":\"orders\",\"pgtrickle-outbox-id\":\"1\"}");
        if (writer.full()) writer.send([] {});
      });
  writer.send([] {});
  writer.finish();
  return 0;
}
