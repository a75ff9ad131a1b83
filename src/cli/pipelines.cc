#include <fmt/core.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/follow.h"
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
    "last_error, remedy, outbox_problem from pgtrickle.relay_pipelines_now() "
    "where $1 = '' or pipeline = $1 order by 1, 2";

constexpr std::string_view kEverything =
    "select json_build_object("
    "'relay_running', exists (select from pgtrickle.relay_instances_now() where alive), "
    "'instances', (select coalesce(json_agg(i), '[]') from pgtrickle.relay_instances_now() i), "
    "'pipelines', (select coalesce(json_agg(p), '[]') from pgtrickle.relay_pipelines_now() p "
    "where $2 = '' or p.pipeline = $2), "
    "'dead_letters', (select count(*) from pgtrickle.relay_dlq where resolved_at is null), "
    "'database_side', $1::json)::text";

constexpr std::string_view kTakeOver =
    "select pipeline, outbox, case result when 'kept' then 'kept: it is as far, or further' "
    "else coalesce(result, 'no position here') end as result, taken_position, \"position\", "
    "dead_letters from pgtrickle.take_over_relay($1, $2, nullif($3, ''))";

/// How far a replay has come: its ids may end before those that it was asked for.
constexpr std::string_view kReplay =
    "select r.next_id - r.from_id, coalesce(r.to_id, r.next_id) - r.from_id + 1, "
    "r.finished_at is not null from pgtrickle.relay_replays r where r.id = $1::bigint";

/// The SQL function behind each action that changes something.
const std::map<std::string, std::string, std::less<>> kChanges = {
    {"enable", "select pgtrickle.enable_relay($1)"},
    {"disable", "select pgtrickle.disable_relay($1)"},
    {"pause", "select pgtrickle.pause_relay($1)"},
    {"resume", "select pgtrickle.resume_relay($1, $2::boolean)"},
    {"replay", "select pgtrickle.replay_relay($1, $2::bigint, $3::bigint)"}};

/// Waits until a replay has ended, and says how. With --json its result alone was printed.
int follow_replay(const Context& context, postgres::Connection& connection, const std::string& id,
                  bool even_alone) {
  std::fflush(stdout);
  const auto followed = follow(context, connection, "replaying", kReplay, id, even_alone);
  if (!followed) return failed(followed.error());
  if (*followed == Followed::left) {
    fmt::print(stderr, "the relay goes on with it\n");
    return kOk;
  }
  if (*followed == Followed::no_relay) {
    fmt::print(stderr, "no relay is running: it begins when one is started\n");
    return kOk;
  }
  const auto end =
      connection.query("select error from pgtrickle.relay_replays where id = $1::bigint", {id},
                       Deadline::after(kTimeout), {});
  if (!end) return failed(end.error());
  if (!end->empty() && !end->is_null(0, 0)) {
    return failed({ErrorClass::transient,
                   "replay_failed",
                   fmt::format("replay {} failed: {}", id, end->text(0, 0)),
                   "",
                   {}});
  }
  if (!context.json) fmt::print("replay {} is done\n", id);
  return kOk;
}

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
  if (!has_number || !waits(context, arguments.wait)) return kOk;
  return follow_replay(context, connection, std::string(done->text(0, 0)),
                       arguments.wait.value_or(false));
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

/// An error, with the nearest name, where there is no such pipeline.
Result<void> require_pipeline(postgres::Connection& connection, std::string_view among,
                              std::string_view column, const std::string& name) {
  const auto rows = connection.query(fmt::format("select distinct {} from {}", column, among), {},
                                     Deadline::after(kTimeout), {});
  if (!rows) return fail(rows.error());
  std::vector<std::string_view> names;
  for (int row = 0; row < rows->size(); ++row) {
    names.push_back(rows->text(row, 0));
    if (names.back() == name) return {};
  }
  const std::string_view near = nearest(name, names);
  return fail(
      misconfigured("no_pipeline", fmt::format("there is no pipeline {} in the database", name),
                    near.empty() ? "`pgtrickle-relay pipelines list` names those that there are"
                                 : fmt::format("did you mean \"{}\"?", near)));
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
  if (const auto known =
          require_pipeline(**connection, "pgtrickle.relay_pipelines", "name", arguments.name);
      !known) {
    return failed(known.error());
  }
  return print_query(context, **connection, kOne, {arguments.name}, Shape::record);
}

int status(const Context& context, const std::string& pipeline) {
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  if (!pipeline.empty()) {
    if (const auto known =
            require_pipeline(**connection, "pgtrickle.relay_pipelines_now()", "pipeline", pipeline);
        !known) {
      return failed(known.error());
    }
  }
  const std::vector<Error> problems = database_problems(**connection);
  if (context.json) return print_json(**connection, kEverything, {json_of(problems), pipeline});
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
  return print_query(context, **connection, kPipelines, {pipeline}, Shape::record);
}

}  // namespace relay::cli
