#include <fmt/core.h>
#include <signal.h>

#include "cli/check_pipelines.h"
#include "cli/commands.h"
#include "cli/findings.h"
#include "cli/schema_history.h"
#include "coordinator/status_queries.h"
#include "core/deadline.h"
#include "schema/installed.h"

namespace relay::cli {

namespace {

using postgres::Connection;

constexpr std::chrono::seconds kTimeout{15};
// Shorter than that: a lock is told as what it is, and the connection stays usable.
constexpr std::string_view kLockTimeout = "set lock_timeout to '2s'";
constexpr std::string_view kNoPrivilege = "42501";

/// The remedy for a role that lacks the privileges to check.
std::string grant_remedy(Connection& connection) {
  const auto role =
      connection.query("select quote_ident(current_user)", {}, Deadline::after(kTimeout), {});
  return fmt::format(
      "GRANT pgtrickle_relay TO {}; if it has that: pgtrickle-relay init, which grants it what it "
      "needs",
      role && !role->empty() ? role->text(0, 0) : "the role of the URL");
}

/// Names the differences between what is installed and what this program needs; how many problems.
int check_differences(Connection& connection, Findings& findings) {
  constexpr std::size_t kNamed = 20;
  const auto differences = schema::differences_now(connection, Deadline::after(kTimeout), {});
  if (!differences) {
    findings.bad("", differences.error());
    return 1;
  }
  int problems = 0;
  for (std::size_t i = 0; i < differences->size(); ++i) {
    const auto& [is_problem, message, remedy] = (*differences)[i];
    problems += is_problem ? 1 : 0;
    if (i >= kNamed) continue;
    const Error found{ErrorClass::misconfigured, "schema_differs", message, remedy, {}};
    if (is_problem) {
      findings.bad("", found);
    } else {
      findings.warn("", found);
    }
  }
  if (differences->size() > kNamed) {
    const Error rest{ErrorClass::misconfigured,
                     "schema_differs",
                     fmt::format("{} more differences of the database side, {} problems in all",
                                 differences->size() - kNamed, problems),
                     "follow the remedies above, and check again",
                     {}};
    findings.warn("", rest);
  }
  return problems;
}

/// Names the tables of the catalogue of options whose rows are not this program's; how many.
int check_catalogue(Connection& connection, const Context& context, Findings& findings) {
  int problems = 0;
  for (const CatalogueTable& table : catalogue_tables(context.registry)) {
    const auto rows = connection.query(table.query, {}, Deadline::after(kTimeout), {});
    if (rows && rows->integer(0, 0) == 0) continue;
    // What is missing or may not be read is among the differences.
    if (!rows && schema::may_explain(rows.error())) continue;
    ++problems;
    if (!rows) {
      findings.bad("", rows.error());
    } else {
      findings.bad("", {ErrorClass::misconfigured,
                        "schema_differs",
                        fmt::format("table {}: rows that are not this program's: {}", table.name,
                                    rows->integer(0, 0)),
                        "pgtrickle-relay init",
                        {}});
    }
  }
  return problems;
}

/// What keeps the program from reading which files were installed.
void report_unread_history(Connection& connection, Error error, Findings& findings) {
  if (error.code == kNoPrivilege) {
    error.remedy = grant_remedy(connection);
  } else if (schema::may_explain(error)) {
    error.remedy = "run: pgtrickle-relay init --postgres-url ...";
  }
  findings.bad("", error);
  const auto begun = connection.query("select pg_catalog.to_regnamespace('pgtrickle') is not null",
                                      {}, Deadline::after(kTimeout), {});
  if (begun && begun->boolean(0, 0)) check_differences(connection, findings);
}

/// Checks that the database side is installed, and is what this program needs. False: it is of no
/// use to look further.
bool check_schema(Connection& connection, const Context& context, Findings& findings) {
  if (const auto known = schema::refuse_other_version(connection, Deadline::after(kTimeout), {});
      !known) {
    findings.bad("", known.error());
    return false;
  }
  if (const auto set = connection.script(kLockTimeout, Deadline::after(kTimeout), {}); !set) {
    findings.bad("", set.error());
    return false;
  }
  const std::vector<DatabaseFile> files = database_files(context.registry);
  const auto differing = differing_files(files, connection, Deadline::after(kTimeout));
  if (!differing) {
    report_unread_history(connection, differing.error(), findings);
    return false;
  }
  if (!differing->empty()) {
    findings.bad(
        "", {ErrorClass::misconfigured,
             "other_schema",
             fmt::format("the database side is of another version than this program: {} of {} "
                         "files differ, {} first",
                         differing->size(), files.size(), differing->front()),
             "where this program is the newer one: pgtrickle-relay init; else upgrade the program",
             {}});
  }
  int problems = check_differences(connection, findings);
  if (differing->empty()) problems += check_catalogue(connection, context, findings);
  if (differing->empty() && problems == 0) {
    findings.good("", "the database side is what this program needs");
  }
  return true;
}

/// Reports the problems that the database finds itself.
void check_database(Connection& connection, Findings& findings) {
  const auto rows =
      connection.query("select pipeline, severity, message, remedy from pgtrickle.relay_check()",
                       {}, Deadline::after(kTimeout), {});
  if (!rows) {
    Error error = rows.error();
    const bool lacks_something = error.code == "42883" || error.code == "42P01";
    if (lacks_something) error.remedy = "install or upgrade what is missing: pgtrickle-relay init";
    findings.bad("", error);
    return;
  }
  for (int row = 0; row < rows->size(); ++row) {
    const Error found{ErrorClass::rejected,
                      "database",
                      std::string(rows->text(row, 2)),
                      std::string(rows->text(row, 3)),
                      {}};
    if (rows->text(row, 1) == "warning") {
      findings.warn(rows->text(row, 0), found);
    } else {
      findings.bad(rows->text(row, 0), found);
    }
  }
}

void check_privileges(Connection& connection, Findings& findings) {
  const auto rows =
      connection.query("select current_user, pg_has_role(current_user, 'pgtrickle_relay', 'usage')",
                       {}, Deadline::after(kTimeout), {});
  if (!rows) {
    findings.bad("", rows.error());
  } else if (!rows->boolean(0, 1)) {
    findings.bad("", {ErrorClass::misconfigured,
                      "privileges",
                      fmt::format("the role {} lacks what the relay needs", rows->text(0, 0)),
                      fmt::format("grant pgtrickle_relay to {}", rows->text(0, 0)),
                      {}});
  } else {
    findings.good("", fmt::format("the role {} has what the relay needs", rows->text(0, 0)));
  }
}

/// Names sessions whose locks keep relays waiting.
void check_blockers(Connection& connection, Findings& findings) {
  const auto blockers = coordinator::read_blockers(connection, Deadline::after(kTimeout), {});
  if (!blockers) {
    findings.bad("", blockers.error());
    return;
  }
  for (const auto& blocker : *blockers) findings.bad("", status::describe(blocker));
}

/// Names replication slots that keep too much WAL.
void check_slots(Connection& connection, const config::SlotLimits& limits, Findings& findings) {
  const auto slots = coordinator::read_slots(connection, Deadline::after(kTimeout), {});
  if (!slots) {
    findings.bad("", slots.error());
    return;
  }
  for (const auto& slot : *slots) {
    if (const auto cause = coordinator::cause_of(slot, limits)) findings.warn("", cause->error);
  }
}

// Inboxes of other owners whose tables run code of theirs when a row is inserted: triggers, rules,
// row policies, and defaults that call functions which are not the server's own.
constexpr std::string_view kInboxesWithCode =
    "select c.inbox_name, c.relation::text, r.relowner::regrole::text, current_user::text "
    "from pgtrickle.pgt_inbox_config c join pg_catalog.pg_class r on r.oid = c.relation "
    "where r.relowner <> 'pgtrickle_owner'::regrole and (r.relrowsecurity "
    "or exists (select from pg_catalog.pg_trigger t where t.tgrelid = r.oid "
    "and not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 4 > 0) "
    "or exists (select from pg_catalog.pg_rewrite w where w.ev_class = r.oid and w.ev_type = '3') "
    "or exists (select from pg_catalog.pg_attrdef d join pg_catalog.pg_depend n "
    "on n.classid = 'pg_catalog.pg_attrdef'::regclass and n.objid = d.oid "
    "and n.refclassid = 'pg_catalog.pg_proc'::regclass where d.adrelid = r.oid)) order by 1";

/// Names the inboxes whose owners' code runs as the relay's role.
void check_inboxes(Connection& connection, Findings& findings) {
  const auto rows = connection.query(kInboxesWithCode, {}, Deadline::after(kTimeout), {});
  if (!rows) {
    findings.bad("", rows.error());
    return;
  }
  for (int row = 0; row < rows->size(); ++row) {
    findings.warn("",
                  {ErrorClass::misconfigured,
                   "inbox_code",
                   fmt::format("inbox \"{}\": inserts run triggers, rules, policies or defaults "
                               "of {}, which belongs to {}, as {}",
                               rows->text(row, 0), rows->text(row, 1), rows->text(row, 2),
                               rows->text(row, 3)),
                   fmt::format("where {} is not trusted, let a relay of its own write there, "
                               "under a role that may do nothing else",
                               rows->text(row, 2)),
                   {}});
  }
}

Result<std::unique_ptr<Connection>> connect_if_named(const Context& context) {
  if (!context.settings.postgres_url.empty()) return connect(context);
  return fail(misconfigured("missing_setting", "no database is named",
                            "give --postgres-url, or correct the file that names it"));
}

}  // namespace

int check(const Context& context) {
  ::signal(SIGPIPE, SIG_IGN);  // the write reports the error
  Findings findings;
  for (const Error& problem : context.problems) findings.bad("", problem);
  for (const Error& warning : context.warnings) findings.warn("", warning);
  auto connection = connect_if_named(context);
  const bool installed = connection && [&] {
    findings.good("", fmt::format("{} answers", (*connection)->endpoint()));
    return check_schema(**connection, context, findings);
  }();
  if (!connection) findings.bad("", connection.error());
  if (installed) {
    check_privileges(**connection, findings);
    check_blockers(**connection, findings);
    check_slots(**connection, context.settings.slots, findings);
    check_inboxes(**connection, findings);
    check_database(**connection, findings);
    check_pipelines(context, **connection, findings);
  } else {
    check_file_pipelines(context, findings);
  }
  findings.print(context.json);
  return findings.exit_code();
}

}  // namespace relay::cli
