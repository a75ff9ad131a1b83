// The shortest way from a replication slot: counts the events that pgoutput sends, and tells the
// server what it may forget.
//   limit_stream POSTGRES_URL SLOT PUBLICATION EVENTS
// Prints when the first and the last event came, in seconds of the monotonic clock.
#include <chrono>
#include <cstdint>
#include <cstring>

#include "outbox_reader.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kReportEvery{100};
constexpr int kHeader = 25;          // of a message 'w': its type, two positions, a time
constexpr int kReplyRequested = 17;  // in a message 'k'
constexpr int kEndOfCommit = kHeader + 1 + 1 + 8;

double seconds(Clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

bench::Connection connect_to_replicate(const char* url) {
  const char* const names[] = {"dbname", "replication", nullptr};
  const char* const values[] = {url, "database", nullptr};
  bench::Connection connection(PQconnectdbParams(names, values, 1));
  if (PQstatus(connection.get()) != CONNECTION_OK) {
    bench::die("connecting", PQerrorMessage(connection.get()));
  }
  return connection;
}

/// `confirmed` is in network order.
void report(PGconn* connection, const char (&confirmed)[8]) {
  char message[34] = {'r'};
  for (int i = 0; i < 3; ++i) std::memcpy(message + 1 + 8 * i, confirmed, sizeof confirmed);
  if (PQputCopyData(connection, message, sizeof message) != 1 || PQflush(connection) != 0) {
    bench::die("reporting", PQerrorMessage(connection));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) bench::die("usage", "limit_stream POSTGRES_URL SLOT PUBLICATION EVENTS");
  const bench::Connection connection = connect_to_replicate(argv[1]);
  const std::string start = std::string("START_REPLICATION SLOT ") + argv[2] +
                            " LOGICAL 0/0 (proto_version '1', publication_names '\"" + argv[3] +
                            "\"', binary 'true')";
  const bench::Rows started(PQexec(connection.get(), start.c_str()));
  if (PQresultStatus(started.get()) != PGRES_COPY_BOTH) {
    bench::die("starting", PQerrorMessage(connection.get()));
  }
  const long wanted = std::atol(argv[4]);
  long events = 0;
  char confirmed[8] = {};
  Clock::time_point first{};
  Clock::time_point reported{};
  while (events < wanted) {
    char* message = nullptr;
    const int size = PQgetCopyData(connection.get(), &message, 0);
    if (size < 0) bench::die("reading", PQerrorMessage(connection.get()));
    bool must_report = false;
    if (message[0] == 'k') {
      must_report = message[kReplyRequested] != 0;
    } else if (message[kHeader] == 'I') {
      if (++events == 1) first = Clock::now();
    } else if (message[kHeader] == 'C') {
      std::memcpy(confirmed, message + kEndOfCommit, sizeof confirmed);
      must_report = Clock::now() - reported >= kReportEvery;
    }
    PQfreemem(message);
    if (must_report) {
      report(connection.get(), confirmed);
      reported = Clock::now();
    }
  }
  std::printf("{\"first\": %.6f, \"last\": %.6f}\n", seconds(first), seconds(Clock::now()));
  return 0;
}
