// The shortest way to the rows of a statement: counts them, and drops them.
//   limit_rows POSTGRES_URL copy QUERY        by COPY, in binary form
//   limit_rows POSTGRES_URL select QUERY      row by row, in binary form
// Prints their number, and the seconds from the statement to the last row.
#include <chrono>
#include <string_view>

#include "outbox_reader.h"

namespace {

long copied(PGconn* connection, const std::string& query) {
  const std::string sql = "copy (" + query + ") to stdout (format binary)";
  const bench::Rows started(PQexec(connection, sql.c_str()));
  if (PQresultStatus(started.get()) != PGRES_COPY_OUT) {
    bench::die("copying", PQerrorMessage(connection));
  }
  long rows = -1;  // the last message is the trailer, and the header comes with the first row
  char* row = nullptr;
  while (PQgetCopyData(connection, &row, 0) > 0) {
    ++rows;
    PQfreemem(row);
  }
  return rows;
}

long selected(PGconn* connection, const char* query) {
  if (PQsendQueryParams(connection, query, 0, nullptr, nullptr, nullptr, nullptr, 1) == 0 ||
      PQsetSingleRowMode(connection) == 0) {
    bench::die("selecting", PQerrorMessage(connection));
  }
  long rows = 0;
  while (const bench::Rows row{PQgetResult(connection)}) {
    if (PQresultStatus(row.get()) == PGRES_SINGLE_TUPLE) ++rows;
  }
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) bench::die("usage", "limit_rows POSTGRES_URL copy|select QUERY");
  const bench::Connection connection = bench::connect(argv[1]);
  const auto begin = std::chrono::steady_clock::now();
  const long rows = std::string_view(argv[2]) == "copy" ? copied(connection.get(), argv[3])
                                                        : selected(connection.get(), argv[3]);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("{\"rows\": %ld, \"seconds\": %.6f}\n", rows, took.count());
  return 0;
}
