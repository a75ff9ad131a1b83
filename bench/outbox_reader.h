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

/// What the relay sends beside the body: headers of these names and values, and the outbox row's
/// id.
inline constexpr char kOpHeader[] = "pgtrickle-op";
inline constexpr char kOp[] = "insert";
inline constexpr char kTableHeader[] = "pgtrickle-stream-table";
inline constexpr char kTable[] = "orders";
inline constexpr char kOutboxIdHeader[] = "pgtrickle-outbox-id";
inline constexpr char kIdHeader[] = "pgtrickle-id";

/// A body of the envelope's size: as many bytes are moved as the relay moves for the same row.
inline void wrap(std::string& body, const char* id, const char* payload, int length) {
  body = "{\"stream_table\":\"orders\",\"sequence\":";
  body += id;
  body += ",\"timestamp\":\"2026-01-01T00:00:00.000Z\",\"delta\":";
  body.append(payload, static_cast<std::size_t>(length));
  body += ",\"metadata\":{\"delta_rows\":1,\"id\":\"b1:";
  body += id;
  body += "-a4f4e8ef:0.730b\"}}";
}

/// Calls `row(id, body, length)` for each row of an outbox table, in order, in batches.
template <class Row>
void read_outbox(PGconn* connection, const std::string& table, int batch, Row&& row) {
  const std::string query = "select id, payload from pgtrickle.\"" + table +
                            "\" where id > $1 order by id limit " + std::to_string(batch);
  const Rows prepared(PQprepare(connection, "read", query.c_str(), 1, nullptr));
  if (PQresultStatus(prepared.get()) != PGRES_COMMAND_OK)
    die("preparing", PQerrorMessage(connection));
  std::string last = "0";
  std::string body;
  while (true) {
    const char* const parameters[] = {last.c_str()};
    const Rows rows(PQexecPrepared(connection, "read", 1, parameters, nullptr, nullptr, 0));
    if (PQresultStatus(rows.get()) != PGRES_TUPLES_OK) die("reading", PQerrorMessage(connection));
    const int count = PQntuples(rows.get());
    for (int i = 0; i < count; ++i) {
      const char* const id = PQgetvalue(rows.get(), i, 0);
      wrap(body, id, PQgetvalue(rows.get(), i, 1), PQgetlength(rows.get(), i, 1));
      row(id, body.c_str(), static_cast<int>(body.size()));
    }
    if (count == 0) return;
    last = PQgetvalue(rows.get(), count - 1, 0);
  }
}

}  // namespace bench
