#pragma once

#include <libpq-fe.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

namespace bench {

struct FreePg {
  void operator()(PGconn* connection) const { PQfinish(connection); }
  void operator()(PGresult* result) const { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, FreePg>;
using Rows = std::unique_ptr<PGresult, FreePg>;

[[noreturn]] inline void die(const char* doing, const char* why) {
  std::fprintf(stderr, "%s: %s\n", doing, why);
  std::exit(1);
}

inline Connection connect(const char* url) {
  Connection connection(PQconnectdb(url));
  if (PQstatus(connection.get()) != CONNECTION_OK) {
    die("connecting", PQerrorMessage(connection.get()));
  }
  return connection;
}

/// Calls `row(id, payload, length)` for each row of an outbox table, in order, in batches.
template <class Row>
void read_outbox(PGconn* connection, const std::string& table, int batch, Row&& row) {
  const std::string query = "select id, payload from pgtrickle.\"" + table +
                            "\" where id > $1 order by id limit " + std::to_string(batch);
  const Rows prepared(PQprepare(connection, "read", query.c_str(), 1, nullptr));
  if (PQresultStatus(prepared.get()) != PGRES_COMMAND_OK)
    die("preparing", PQerrorMessage(connection));
  std::string last = "0";
  while (true) {
    const char* const parameters[] = {last.c_str()};
    const Rows rows(PQexecPrepared(connection, "read", 1, parameters, nullptr, nullptr, 0));
    if (PQresultStatus(rows.get()) != PGRES_TUPLES_OK) die("reading", PQerrorMessage(connection));
    const int count = PQntuples(rows.get());
    for (int i = 0; i < count; ++i) {
      row(PQgetvalue(rows.get(), i, 0), PQgetvalue(rows.get(), i, 1),
          PQgetlength(rows.get(), i, 1));
    }
    if (count == 0) return;
    last = PQgetvalue(rows.get(), count - 1, 0);
  }
}

}  // namespace bench
