#include "stream_program/check.h"

#include <fmt/core.h>

#include <chrono>
#include <string_view>

#include "cli/findings.h"
#include "coordinator/assembly.h"
#include "core/deadline.h"
#include "pipeline/metrics.h"
#include "postgres/pool.h"
#include "postgres/replication.h"
#include "stream_program/database_side.h"

namespace relay::stream_program {

namespace {

using cli::Findings;
using postgres::Connection;

constexpr std::chrono::seconds kTimeout{10};
constexpr char kProgram[] = "postgres-stream check";

/// Whether there can be a slot for the stream.
void check_slots(Connection& session, const StreamConfig& stream, Findings& findings) {
  const std::string& name = stream.pipeline.name;
  const auto rows = session.query(
      "select current_setting('wal_level'), current_setting('max_replication_slots')::int, "
      "(select count(*) from pg_replication_slots), "
      "exists (select from pg_replication_slots s where s.slot_name = 'pgstream_' || $1)",
      {std::to_string(stream.id)}, Deadline::after(kTimeout), {});
  if (!rows) {
    findings.bad(name, rows.error());
    return;
  }
  if (const std::string_view level = rows->text(0, 0); level == "logical") {
    findings.good(name, "wal_level is logical");
  } else {
    findings.bad(
        name, misconfigured("wal_level", fmt::format("wal_level is {}, and must be logical", level),
                            "ALTER SYSTEM SET wal_level = logical; and restart the server"));
  }
  if (!rows->boolean(0, 3) && rows->integer(0, 2) >= rows->integer(0, 1)) {
    findings.bad(name, misconfigured("no_free_slot",
                                     fmt::format("all {} replication slots are taken, and the "
                                                 "stream needs one",
                                                 rows->integer(0, 1)),
                                     "drop one that nothing uses (SELECT * FROM "
                                     "pg_replication_slots), or raise max_replication_slots and "
                                     "restart the server"));
  }
}

void check_database(const StreamConfig& stream, Findings& findings) {
  const std::string& name = stream.pipeline.name;
  auto session = Connection::open(options_of(stream, kProgram), {});
  if (!session) {
    findings.bad(name, session.error());
    return;
  }
  findings.good(name, fmt::format("{} answers", (*session)->endpoint()));
  if (const auto good = check_server(**session, {}); !good) findings.bad(name, good.error());
  if (!stream.replicates) return;
  check_slots(**session, stream, findings);
  if (const auto log = postgres::ReplicationConnection::open(options_of(stream, kProgram), {});
      !log) {
    findings.bad(name, log.error());
  } else {
    findings.good(name, "the role may replicate");
  }
}

void check_sink(const StreamConfig& stream, const Registry& registry, Findings& findings) {
  const std::string& name = stream.pipeline.name;
  postgres::Pool pool(options_of(stream, kProgram), 1);
  Metrics metrics("postgres_stream_");
  const auto ends = coordinator::assemble_ends(
      stream.pipeline, {registry, pool, metrics, "postgres-stream", "check"}, std::nullopt);
  if (!ends) {
    findings.bad(name, ends.error());
    return;
  }
  const Inspection found = ends->sink->inspect(ends->subject, {});
  for (const Error& problem : found.problems) findings.bad(name, problem);
  for (const Error& warning : found.warnings) findings.warn(name, warning);
  if (!found.problems.empty()) return;
  findings.good(name, fmt::format("the sink {} can be used", stream.pipeline.sink_type));
  for (const std::string& note : found.notes) findings.good(name, note);
}

}  // namespace

int check(const Configuration& configuration, const Registry& registry, bool json) {
  Findings findings;
  for (const Error& problem : configuration.problems) findings.bad("", problem);
  const bool is_good = configuration.problems.empty();
  for (const StreamConfig& stream : configuration.streams) {
    if (!is_good) break;
    check_database(stream, findings);
    check_sink(stream, registry, findings);
  }
  findings.print(json);
  return findings.exit_code();
}

}  // namespace relay::stream_program
