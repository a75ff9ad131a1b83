#include <fmt/core.h>

#include <set>

#include "cli/commands.h"
#include "cli/embedded_sql.h"
#include "cli/findings.h"
#include "cli/schema_history.h"
#include "coordinator/assembly.h"
#include "coordinator/lease_session.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

using config::PipelineConfig;
using postgres::Connection;

constexpr std::chrono::seconds kTimeout{15};

/// Is the database side there, and the one of this program?
bool check_schema(Connection& connection, Findings& findings) {
  const auto files = differing_files(connection, Deadline::after(kTimeout));
  if (!files) {
    Error error = files.error();
    const bool missing = error.code == "3F000" || error.code == "42P01" || error.code == "42703";
    if (missing) error.remedy = "run: pgtrickle-relay init --postgres-url ...";
    findings.bad("", error);
    return false;
  }
  if (!files->empty()) {
    findings.bad(
        "", {ErrorClass::misconfigured,
             "other_schema",
             fmt::format("the database side is of another version than this program: {} of {} "
                         "files differ, {} first",
                         files->size(), embedded_sql().size(), files->front()),
             "where this program is the newer one: pgtrickle-relay init; else upgrade the program",
             {}});
  } else {
    findings.good("", "the database side is installed");
  }
  return true;
}

/// What the database itself finds wrong.
void check_database(Connection& connection, Findings& findings) {
  const auto rows =
      connection.query("select pipeline, severity, message, remedy from pgtrickle.relay_check()",
                       {}, Deadline::after(kTimeout), {});
  if (!rows) {
    Error error = rows.error();
    if (error.code == "42883") error.remedy = "upgrade the database side: pgtrickle-relay init";
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
  for (const auto& blocker : *blockers) findings.bad("", coordinator::describe(blocker));
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

std::vector<PipelineConfig> configured(Connection& connection, const Context& context,
                                       Findings& findings) {
  std::vector<PipelineConfig> all = context.file_pipelines;
  const auto rows = connection.query(
      "select name, direction, enabled, config::text from pgtrickle.relay_pipelines order by name",
      {}, Deadline::after(kTimeout), {});
  if (!rows) {
    findings.bad("", rows.error());
    return all;
  }
  for (int row = 0; row < rows->size(); ++row) {
    all.push_back(config::pipeline_from_json(rows->text(row, 0), rows->text(row, 1),
                                             rows->boolean(row, 2), rows->text(row, 3),
                                             context.settings.access));
  }
  return all;
}

void check_outbox(Connection& connection, const std::string& group, const std::string& pipeline,
                  const std::string& outbox, Findings& findings) {
  const auto rows = connection.query(
      "select c.outbox_table_name from pgtrickle.pgt_outbox_config c join "
      "pgtrickle.relay_pipeline_outbox($1, $2, $3) p using (incarnation) where "
      "p.named_table is null or pgtrickle.relay_outbox_name_holds("
      "p.incarnation, p.named_schema, p.named_table)",
      {outbox, group, pipeline}, Deadline::after(kTimeout), {});
  if (!rows) {
    findings.bad(pipeline, rows.error());
  } else if (rows->empty()) {
    findings.bad(pipeline, {ErrorClass::misconfigured,
                            "no_outbox",
                            fmt::format("{} has no outbox", outbox),
                            fmt::format("select pgtrickle.enable_outbox('{}')", outbox),
                            {}});
  } else {
    findings.good(pipeline, fmt::format("reads pgtrickle.{}", rows->text(0, 0)));
  }
}

void check_pipeline(const PipelineConfig& config, const Context& context, Connection& connection,
                    postgres::Pool& pool, Findings& findings) {
  const auto problems = coordinator::problems_of(config, context.registry);
  for (const Error& problem : problems) findings.bad(config.name, problem);
  for (const Error& warning : coordinator::warnings_of(config, context.registry)) {
    findings.warn(config.name, warning);
  }
  if (!problems.empty()) return;
  const std::string outbox = coordinator::outbox_of(config);
  if (!outbox.empty())
    check_outbox(connection, context.settings.relay_group_id, config.name, outbox, findings);
  auto sink = coordinator::make_sink(config, context.registry, pool);
  if (!sink) {
    findings.bad(config.name, sink.error());
    return;
  }
  if (config.sink_type == "stdout" || config.sink_type == "file") {
    // Opening a file would create it: the running relay's business.
    findings.good(config.name, fmt::format("writes to {}", config.sink_type));
    return;
  }
  if (const auto opened = (*sink)->open({}); !opened) {
    findings.bad(config.name, opened.error());
  } else {
    findings.good(config.name, fmt::format("{} answers", config.sink_type));
  }
  (*sink)->close();
}

Error name_taken(const PipelineConfig& config) {
  return {ErrorClass::misconfigured,
          "name_taken",
          fmt::format("{}: another pipeline has this name too", config.place),
          "rename one of the two, or delete it",
          {}};
}

}  // namespace

int check(const Context& context) {
  Findings findings;
  for (const Error& warning : context.warnings) findings.warn("", warning);
  auto connection = connect(context);
  if (!connection) {
    findings.bad("", connection.error());
    for (const auto& pipeline : context.file_pipelines) {
      for (const Error& problem : coordinator::problems_of(pipeline, context.registry)) {
        findings.bad(pipeline.name, problem);
      }
    }
  } else {
    findings.good("", fmt::format("{} answers", (*connection)->endpoint()));
    if (check_schema(**connection, findings)) {
      check_privileges(**connection, findings);
      check_blockers(**connection, findings);
      check_inboxes(**connection, findings);
      check_database(**connection, findings);
      Connection::Options options;
      options.url = context.settings.postgres_url;
      options.application_name = "pgtrickle-relay check";
      postgres::Pool pool(options, 1);
      std::set<std::string> names;
      for (const auto& pipeline : configured(**connection, context, findings)) {
        if (!names.insert(pipeline.name).second) findings.bad(pipeline.name, name_taken(pipeline));
        check_pipeline(pipeline, context, **connection, pool, findings);
      }
    }
  }
  findings.print(context.json);
  return findings.exit_code();
}

}  // namespace relay::cli
