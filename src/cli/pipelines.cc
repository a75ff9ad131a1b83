#include <fmt/core.h>

#include <cstdio>
#include <map>

#include "cli/commands.h"
#include "cli/output.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};

constexpr std::string_view kList =
    "select p.name, p.direction, p.enabled, coalesce(s.state, 'none') as state, "
    "s.relay_group_id as \"group\", s.worker_id as owner, s.last_change_id as position, s.lag, "
    "s.last_error from pgtrickle.relay_pipelines p "
    "left join pgtrickle.relay_pipeline_status s on s.pipeline = p.name ";

// What is wrong with the outbox of a status `s`: the one whose position moved last. A pipeline that
// was given another outbox has positions of both.
constexpr std::string_view kOutboxProblem =
    "(select c.outbox_table_name || ': ' || c.problem "
    "from pgtrickle.relay_consumer_offsets o "
    "join pgtrickle.pgt_outbox_config c on c.incarnation = o.incarnation "
    "where o.pipeline_id = s.pipeline and o.relay_group_id = s.relay_group_id "
    "order by o.updated_at desc limit 1) as outbox_problem";

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

}  // namespace

int pipelines(const Context& context, const PipelineArguments& arguments) {
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  if (arguments.action == "list") {
    return print_query(context, **connection, std::string(kList) + "order by p.name", {});
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
  return print_query(context, **connection,
                     "select p.name, p.direction, p.enabled, s.state, s.worker_id as owner, "
                     "s.since, s.last_change_id as position, s.lag, s.error_class, s.last_error, "
                     "s.remedy, p.config from pgtrickle.relay_pipelines p "
                     "left join pgtrickle.relay_pipeline_status s on s.pipeline = p.name "
                     "where p.name = $1",
                     {arguments.name});
}

int status(const Context& context) {
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  if (context.json) {
    return print_query(
        context, **connection,
        fmt::format(
            "select (select coalesce(json_agg(i), '[]') from pgtrickle.relay_instances i) as "
            "instances, (select coalesce(json_agg(w), '[]') from (select s.*, {} "
            "from pgtrickle.relay_pipeline_status s) w) as pipelines, "
            "(select count(*) from pgtrickle.relay_dlq where resolved_at is null) as dead_letters",
            kOutboxProblem),
        {});
  }
  fmt::print("Instances\n");
  int code = print_query(
      context, **connection,
      "select relay_group_id as \"group\", worker_id as instance, version, "
      "date_trunc('second', clock_timestamp() - started_at) as up, "
      "round(extract(epoch from clock_timestamp() - heartbeat_at)::numeric, 1) as heartbeat_age_s "
      "from pgtrickle.relay_instances order by 1, 2",
      {});
  if (code != kOk) return code;
  fmt::print("\nPipelines\n");
  code = print_query(
      context, **connection,
      fmt::format(
          "select s.pipeline, s.relay_group_id as \"group\", s.state, "
          "s.last_change_id as position, s.lag, "
          "date_trunc('second', clock_timestamp() - s.since) as since, "
          "(select count(*) from pgtrickle.relay_dlq d where d.pipeline = s.pipeline "
          "and d.relay_group_id = s.relay_group_id and d.resolved_at is null) as dead_letters, "
          "s.last_error, s.remedy, {} from pgtrickle.relay_pipeline_status s order by 1, 2",
          kOutboxProblem),
      {});
  return code;
}

}  // namespace relay::cli
