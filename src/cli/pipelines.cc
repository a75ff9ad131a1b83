#include <fmt/core.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "core/deadline.h"
#include "core/text.h"
#include "schema/installed.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};

constexpr std::string_view kList =
    "select p.pipeline as name, p.direction, p.enabled, p.state, p.relay_group_id as \"group\", "
    "p.owner, p.position, p.lag, p.last_error from pgtrickle.relay_pipelines_now() p "
    "where p.direction is not null order by 1, 5";

constexpr std::string_view kOne =
    "select p.name, p.direction, p.enabled, n.state, n.relay_group_id as \"group\", n.owner, "
    "n.since, n.position, n.lag, n.lag_exact, n.dead_letters, n.error_class, n.last_error, "
    "n.remedy, n.outbox_problem, p.config from pgtrickle.relay_pipelines p "
    "left join pgtrickle.relay_pipelines_now() n on n.pipeline = p.name where p.name = $1";

constexpr std::string_view kInstances =
    "select relay_group_id as \"group\", worker_id as instance, version, "
    "case when alive then 'alive' else 'gone' end as state, "
    "case when alive then date_trunc('second', clock_timestamp() - started_at) end as up, "
    "round(extract(epoch from clock_timestamp() - heartbeat_at)::numeric, 1) as heartbeat_age_s "
    "from pgtrickle.relay_instances_now() order by 1, alive desc, 2";

constexpr std::string_view kPipelines =
    "select pipeline, relay_group_id as \"group\", state, position, "
    "case when lag_exact then lag::text else 'about ' || lag end as lag, "
    "date_trunc('second', greatest(clock_timestamp() - since, '0')) as since, dead_letters, "
    "last_error, remedy, outbox_problem from pgtrickle.relay_pipelines_now() order by 1, 2";

constexpr std::string_view kEverything =
    "select json_build_object("
    "'relay_running', exists (select from pgtrickle.relay_instances_now() where alive), "
    "'instances', (select coalesce(json_agg(i), '[]') from pgtrickle.relay_instances_now() i), "
    "'pipelines', (select coalesce(json_agg(p), '[]') from pgtrickle.relay_pipelines_now() p), "
    "'dead_letters', (select count(*) from pgtrickle.relay_dlq where resolved_at is null), "
    "'database_side', $1::json)::text";

constexpr std::string_view kTakeOver =
    "select pipeline, outbox, case result when 'kept' then 'kept: it is as far, or further' "
    "else coalesce(result, 'no position here') end as result, taken_position, \"position\", "
    "dead_letters from pgtrickle.take_over_relay($1, $2, nullif($3, ''))";

/// The SQL function behind each action that changes something.
const std::map<std::string, std::string, std::less<>> kChanges = {
    {"enable", "select pgtrickle.enable_relay($1)"},
    {"disable", "select pgtrickle.disable_relay($1)"},
    {"pause", "select pgtrickle.pause_relay($1)"},
    {"resume", "select pgtrickle.resume_relay($1, $2::boolean)"},
    {"replay", "select pgtrickle.replay_relay($1, $2::bigint, $3::bigint)"}};

int change(const Context& context, postgres::Connection& connection,
           const PipelineArguments& arguments) {
  std::vector<postgres::Param> params = {arguments.name};
  if (arguments.action == "resume") {
    params.emplace_back(arguments.accept_loss ? "true" : "false");
  } else if (arguments.action == "replay") {
    params.emplace_back(std::to_string(*arguments.from));
    params.push_back(arguments.to ? postgres::Param(std::to_string(*arguments.to)) : std::nullopt);
  }
  const auto done = connection.query(kChanges.find(arguments.action)->second, params,
                                     Deadline::after(kTimeout), {});
  if (!done) return failed(done.error());
  const bool has_number = arguments.action == "replay";
  if (context.json) {
    fmt::print("{{\"ok\":true{}}}\n",
               has_number ? fmt::format(",\"replay\":{}", done->text(0, 0)) : std::string());
  } else if (has_number) {
    fmt::print("{}: replay {} is under way\n", arguments.name, done->text(0, 0));
  } else {
    fmt::print("{}: {}d\n", arguments.name, arguments.action);
  }
  return kOk;
}

/// Whether any relay is alive, or the error.
Result<bool> relay_runs(postgres::Connection& connection) {
  const auto alive =
      connection.query("select exists (select from pgtrickle.relay_instances_now() where alive)",
                       {}, Deadline::after(kTimeout), {});
  if (!alive) return fail(alive.error());
  return alive->boolean(0, 0);
}

/// What keeps this program from working with the database side.
std::vector<Error> database_problems(postgres::Connection& connection) {
  std::vector<Error> problems;
  const Deadline deadline = Deadline::after(kTimeout);
  if (const auto known = schema::refuse_other_version(connection, deadline, {}); !known) {
    return {known.error()};
  }
  const auto differences = schema::differences_now(connection, deadline, {});
  if (!differences) return {differences.error()};
  for (const auto& [is_problem, message, remedy] : *differences) {
    if (!is_problem) continue;
    problems.push_back({ErrorClass::misconfigured, "schema_differs", message, remedy, {}});
  }
  return problems;
}

std::string json_of(const std::vector<Error>& problems) {
  std::string list;
  for (const Error& problem : problems) {
    if (!list.empty()) list += ',';
    list += fmt::format(R"({{"message":{},"remedy":{}}})", json_string(problem.message),
                        json_string(problem.remedy));
  }
  return '[' + list + ']';
}

void print_database_problems(const std::vector<Error>& problems) {
  if (problems.empty()) return;
  const Error& first = problems.front();
  fmt::print("PROBLEM {}\n", first.message);
  fmt::print("  remedy: {}\n", first.remedy);
  if (problems.size() > 1) {
    fmt::print("  {} more: `pgtrickle-relay check` names them\n", problems.size() - 1);
  }
  fmt::print("\n");
}

}  // namespace

int pipelines(const Context& context, const PipelineArguments& arguments) {
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  if (arguments.action == "list") return print_query(context, **connection, kList, {});
  if (arguments.action == "take-over") {
    return print_query(context, **connection, kTakeOver,
                       {arguments.from_group, context.settings.relay_group_id, arguments.name});
  }
  if (arguments.action != "show") return change(context, **connection, arguments);
  const auto known = (*connection)
                         ->query("select 1 from pgtrickle.relay_pipelines where name = $1",
                                 {arguments.name}, Deadline::after(kTimeout), {});
  if (!known) return failed(known.error());
  if (known->empty()) {
    return failed({ErrorClass::misconfigured,
                   "no_pipeline",
                   fmt::format("there is no pipeline {} in the database", arguments.name),
                   "`pgtrickle-relay pipelines list` names those that there are",
                   {}});
  }
  return print_query(context, **connection, kOne, {arguments.name});
}

int status(const Context& context) {
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  const std::vector<Error> problems = database_problems(**connection);
  if (context.json) return print_json(**connection, kEverything, {json_of(problems)});
  print_database_problems(problems);
  const auto runs = relay_runs(**connection);
  if (!runs) return failed(runs.error());
  if (!*runs) {
    fmt::print(
        "No relay is running: nothing is delivered until `pgtrickle-relay run` is started.\n\n");
  }
  fmt::print("Instances\n");
  if (const int code = print_query(context, **connection, kInstances, {}); code != kOk) return code;
  fmt::print("\nPipelines\n");
  return print_query(context, **connection, kPipelines, {});
}

}  // namespace relay::cli
