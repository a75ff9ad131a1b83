#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <thread>

#include "cli/commands.h"
#include "cli/database_files.h"
#include "cli/progress.h"
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
/// How long an installation tries to lock tables that transactions of others use. Each try is short
/// (before/010_patience.sql), and others pass in the pause after it.
constexpr std::chrono::seconds kLockPatience{60};
constexpr std::chrono::milliseconds kLockPause{500};
/// How long it waits for the transactions that may still use what it has replaced.
constexpr std::chrono::seconds kSettlePatience{10};
constexpr std::chrono::milliseconds kSettlePause{50};

/// What follows in transactions of their own.
constexpr std::string_view kRebuild =
    "select coalesce(pgtrickle_internal.rebuild_capture($1::int), 0)";
constexpr std::string_view kDropSuperseded =
    "select left_behind, more from pgtrickle_internal.drop_superseded()";

int print_sql(const Registry& registry) {
  fmt::print("-- In one transaction: in between, applications would meet half of it.\nbegin;\n");
  for (const DatabaseFile& file : database_files(registry)) {
    fmt::print("-- {}\n{}\n", file.name, file.text);
  }
  fmt::print("commit;\n");
  fmt::print(
      "-- In transactions of their own, the last one until it returns no more.\n"
      "do $$\ndeclare\n  last int := 0;\nbegin\n"
      "  while last is not null loop\n    last := pgtrickle_internal.rebuild_capture(last);\n"
      "  end loop;\nend $$;\n{};\n",
      kDropSuperseded);
  return kOk;
}

/// Two installations created the same role, schema or table, or changed the same catalog row.
bool met_another(const Error& error) {
  constexpr std::array<std::string_view, 7> kStates{"23505", "42710", "42P06", "42P07",
                                                    "42723", "40P01", "XX000"};
  return std::ranges::find(kStates, error.code) != kStates.end();
}

bool found_a_lock(const Error& error) {
  return error.code == "55P03";
}

/// Runs all files in one transaction. Returns how many were new or changed.
Result<int> install_once(Connection& connection, const std::vector<DatabaseFile>& files,
                         Progress& progress, Deadline deadline) {
  if (auto begun = connection.script("begin", deadline, {}); !begun) return fail(begun.error());
  int changed = 0;
  std::string names;
  std::int64_t installed = 0;
  for (const DatabaseFile& file : files) {
    progress.show(installed++, static_cast<std::int64_t>(files.size()));
    if (auto run = connection.script(file.text, deadline, {}); !run) {
      return fail(run.error().in_context(file.name));
    }
    const auto noted = connection.query(
        "insert into pgtrickle.relay_schema_history as h (file, checksum, version, installed_at) "
        "values ($1, $2, $3::int, clock_timestamp()) on conflict (file) do update set "
        "checksum = excluded.checksum, version = excluded.version, "
        "installed_at = excluded.installed_at where h.checksum <> excluded.checksum",
        {file.name, checksum(file.text), std::to_string(schema::version())}, deadline, {});
    if (!noted) return fail(noted.error());
    changed += static_cast<int>(noted->affected());
    names += file.name + '\n';
  }
  const auto forgotten = connection.query(
      "delete from pgtrickle.relay_schema_history where file <> all (string_to_array($1, e'\\n'))",
      {names}, deadline, {});
  if (!forgotten) return fail(forgotten.error());
  const auto told = connection.query("select pg_catalog.pg_notify('pgtrickle_relay_config', $1)",
                                     {std::string(schema::kInstalledNotice)}, deadline, {});
  if (!told) return fail(told.error());
  if (auto done = connection.script("commit", deadline, {}); !done) return fail(done.error());
  return changed;
}

/// Names the transactions that keep an installation from locking our tables.
Error blocked(Connection& connection, Error error, Deadline deadline) {
  const auto holders = connection.query(
      "select string_agg(distinct coalesce('session ' || l.pid, 'prepared transaction ' || "
      "quote_literal(x.gid), 'another transaction'), ', ') "
      "from pg_locks l join pg_class c on c.oid = l.relation "
      "join pg_namespace n on n.oid = c.relnamespace and n.nspname in ('pgtrickle', "
      "'pgtrickle_internal') "
      "left join pg_locks t on l.pid is null and t.pid is null "
      "and t.locktype = 'transactionid' and t.virtualtransaction = l.virtualtransaction "
      "left join pg_prepared_xacts x on x.transaction = t.transactionid "
      "where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid() "
      "and l.database = (select d.oid from pg_database d where d.datname = current_database())",
      {}, deadline, {});
  if (holders && !holders->is_null(0, 0)) {
    error.message += fmt::format("; tables of pgtrickle are in use by {}", holders->text(0, 0));
  }
  error.remedy = "nothing was changed: run init again when those transactions have ended";
  return error;
}

/// Names the event triggers of users, one of which may have raised the error.
Error perhaps_of_event_trigger(Connection& connection, Error error, Deadline deadline) {
  if (!error.remedy.empty()) return error;
  const auto triggers = connection.query(
      "select string_agg(quote_ident(t.evtname), ', ' order by t.evtname), "
      "string_agg(format('ALTER EVENT TRIGGER %I DISABLE;', t.evtname), ' ' order by t.evtname) "
      "from pg_event_trigger t where t.evtenabled <> 'D' and not exists (select from pg_depend d "
      "where d.classid = 'pg_event_trigger'::regclass and d.objid = t.oid and d.deptype = 'e')",
      {}, deadline, {});
  if (triggers && !triggers->is_null(0, 0)) {
    error.remedy = fmt::format(
        "nothing was changed; if an event trigger of this database raised "
        "this error ({}), disable it while init runs: {}",
        triggers->text(0, 0), triggers->text(0, 1));
  }
  return error;
}

/// Writes the capture functions anew and drops what is superseded. Returns a warning where
/// something stays for now, else nothing. An interruption costs nothing: the next installation, or
/// housekeeping, goes on.
Result<std::string> settle(Connection& connection, Deadline deadline) {
  const auto again = [](const Error& error) { return found_a_lock(error) || met_another(error); };
  for (std::string last = "0";;) {
    const auto rebuilt = connection.query(kRebuild, {last}, deadline, {});
    if (!rebuilt && again(rebuilt.error()) && !deadline.passed()) {
      std::this_thread::sleep_for(kSettlePause);
      continue;
    }
    if (!rebuilt) return fail(rebuilt.error().in_context("writing capture functions"));
    last = rebuilt->text(0, 0);
    if (last == "0") break;
  }
  for (const Deadline patience = Deadline::after(kSettlePatience);;) {
    const auto dropped = connection.query(kDropSuperseded, {}, deadline, {});
    if (!dropped && !again(dropped.error())) {
      return fmt::format(
          "objects of an earlier version stay, for they could not be dropped: {}; what is "
          "installed "
          "works without them, and the next init tries again",
          dropped.error().message);
    }
    if (dropped && !dropped->boolean(0, 1)) {
      return dropped->integer(0, 0) == 0
                 ? std::string()
                 : fmt::format(
                       "{} objects of an earlier version stay, for others use them: "
                       "`pgtrickle-relay check` names what uses them",
                       dropped->text(0, 0));
    }
    if (patience.passed()) {
      return "objects of an earlier version stay until transactions have ended that were open "
             "during the upgrade: a relay's housekeeping drops them, or the next init; "
             "`pgtrickle-relay check` names the sessions";
    }
    std::this_thread::sleep_for(kSettlePause);
  }
}

Result<int> install(Connection& connection, const std::vector<DatabaseFile>& files, bool quiet) {
  const Deadline deadline = Deadline::after(kTimeout);
  const Deadline lock_patience = Deadline::after(kLockPatience);
  Progress progress("installing", quiet);
  for (int attempt = 1;;) {
    auto installed = install_once(connection, files, progress, deadline);
    if (installed) return installed;
    const bool waits = found_a_lock(installed.error());
    const bool again =
        waits ? !lock_patience.passed() : met_another(installed.error()) && attempt++ < kAttempts;
    if (!connection.ok()) return installed;
    if (auto undone = connection.script("rollback", deadline, {}); !undone) {
      return fail(undone.error());
    }
    if (!again && waits) return fail(blocked(connection, installed.error(), deadline));
    if (!again) return fail(perhaps_of_event_trigger(connection, installed.error(), deadline));
    if (waits) std::this_thread::sleep_for(kLockPause);
  }
}

/// Installs, and says on stderr what remains to be done.
Result<int> install_and_settle(Connection& connection, const std::vector<DatabaseFile>& files,
                               bool quiet) {
  auto installed = install(connection, files, quiet);
  if (!installed) return installed;
  const auto remains = settle(connection, Deadline::after(kTimeout));
  if (!remains) return fail(remains.error());
  if (!remains->empty()) fmt::print(stderr, "{}\n", *remains);
  return installed;
}

}  // namespace

Result<int> install_database_side(const Context& context) {
  auto connection = connect(context);
  if (!connection) return fail(connection.error());
  return install_and_settle(**connection, database_files(context.registry), context.json);
}

int init_database(const Context& context, bool dry_run) {
  if (dry_run) return print_sql(context.registry);
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  const std::vector<DatabaseFile> files = database_files(context.registry);
  const auto changed = install_and_settle(**connection, files, context.json);
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
