#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "cli/commands.h"
#include "cli/database_files.h"
#include "cli/schema_history.h"
#include "core/deadline.h"
#include "schema/installed.h"

namespace relay::cli {

namespace {

using postgres::Connection;

constexpr std::chrono::minutes kTimeout{10};
/// How often an installation starts again because another one created the same objects at the same
/// time. Only first installations can collide: later ones wait for each other at a table lock.
constexpr int kAttempts = 10;

int print_sql(const Registry& registry) {
  for (const DatabaseFile& file : database_files(registry)) {
    fmt::print("-- {}\n{}\n", file.name, file.text);
  }
  return kOk;
}

/// Two installations created the same role, schema or table, or changed the same catalog row.
bool met_another(const Error& error) {
  constexpr std::array<std::string_view, 7> kStates{"23505", "42710", "42P06", "42P07",
                                                    "42723", "40P01", "XX000"};
  return std::ranges::find(kStates, error.code) != kStates.end();
}

/// Runs all files in one transaction. Returns how many were new or changed. Refuses a database side
/// of a later version; what is asked of that is asked when the first file has refused what other
/// roles could have prepared.
Result<int> install_once(Connection& connection, const std::vector<DatabaseFile>& files,
                         Deadline deadline) {
  if (auto begun = connection.script("begin", deadline, {}); !begun) return fail(begun.error());
  int changed = 0;
  for (const DatabaseFile& file : files) {
    if (auto run = connection.script(file.text, deadline, {}); !run) {
      return fail(run.error().in_context(file.name));
    }
    if (&file == &files.front()) {
      if (auto known = schema::refuse_newer(connection, deadline, {}); !known) {
        return fail(known.error());
      }
    }
    const auto noted = connection.query(
        "insert into pgtrickle.relay_schema_history as h (file, checksum, version, installed_at) "
        "values ($1, $2, $3::int, clock_timestamp()) on conflict (file) do update set "
        "checksum = excluded.checksum, version = excluded.version, "
        "installed_at = excluded.installed_at where h.checksum <> excluded.checksum",
        {file.name, checksum(file.text), std::to_string(schema::kVersion)}, deadline, {});
    if (!noted) return fail(noted.error());
    changed += static_cast<int>(noted->affected());
  }
  const auto told = connection.query("select pg_catalog.pg_notify('pgtrickle_relay_config', $1)",
                                     {std::string(schema::kInstalledNotice)}, deadline, {});
  if (!told) return fail(told.error());
  if (auto done = connection.script("commit", deadline, {}); !done) return fail(done.error());
  return changed;
}

Result<int> install(Connection& connection, const std::vector<DatabaseFile>& files) {
  const Deadline deadline = Deadline::after(kTimeout);
  for (int attempt = 1;; ++attempt) {
    auto installed = install_once(connection, files, deadline);
    if (installed || attempt == kAttempts || !met_another(installed.error())) return installed;
    if (auto undone = connection.script("rollback", deadline, {}); !undone) {
      return fail(undone.error());
    }
  }
}

}  // namespace

Result<int> install_database_side(const Context& context) {
  auto connection = connect(context);
  if (!connection) return fail(connection.error());
  return install(**connection, database_files(context.registry));
}

int init_database(const Context& context, bool dry_run) {
  if (dry_run) return print_sql(context.registry);
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  const std::vector<DatabaseFile> files = database_files(context.registry);
  const auto changed = install(**connection, files);
  if (!changed) return failed(changed.error());
  const std::string endpoint = (*connection)->endpoint();
  if (context.json) {
    fmt::print("{{\"changed_files\":{}}}\n", *changed);
  } else if (*changed == 0) {
    fmt::print("{}: the database side is up to date\n", endpoint);
  } else {
    fmt::print("{}: installed ({} of {} files were new or changed)\n", endpoint, *changed,
               files.size());
  }
  return kOk;
}

}  // namespace relay::cli
