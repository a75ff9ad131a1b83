#include <fmt/core.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/output.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};

int change(const Context& context, postgres::Connection& connection, const std::string& sql,
           const std::string& argument, std::string_view said) {
  const auto done = connection.query(sql, {argument}, Deadline::after(kTimeout), {});
  if (!done) return failed(done.error());
  if (context.json) {
    fmt::print("{{\"ok\":true}}\n");
  } else {
    fmt::print("{}\n", said);
  }
  return kOk;
}

int usage(std::string_view text) {
  fmt::print(stderr, "error: {}\n", text);
  return kUsage;
}

}  // namespace

int dead_letters(const Context& context, const DlqArguments& arguments) {
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  const std::string id = arguments.id ? std::to_string(*arguments.id) : "";
  if (arguments.action == "list") {
    return print_query(
        context, **connection,
        "select id, pipeline, message_id, subject, attempts, first_failed_at, error_code, "
        "error_message, retry_requested_at is not null as retry_requested "
        "from pgtrickle.relay_dlq where resolved_at is null and ($1 = '' or pipeline = $1) "
        "order by id limit $2::bigint",
        {arguments.pipeline, std::to_string(arguments.limit)});
  }
  if (arguments.action == "show") {
    return print_query(context, **connection,
                       "select d.*, convert_from(d.payload, 'UTF8') as payload_text "
                       "from pgtrickle.relay_dlq d where id = $1::bigint",
                       {id});
  }
  if (arguments.action == "retry") {
    if (!arguments.pipeline.empty()) {
      return change(context, **connection, "select pgtrickle.relay_dlq_retry_all($1)",
                    arguments.pipeline, "all dead letters of the pipeline will be sent again");
    }
    if (id.empty()) return usage("give the id of a dead letter, or --all PIPELINE");
    return change(context, **connection, "select pgtrickle.relay_dlq_retry($1::bigint)", id,
                  "it will be sent again by the owner of its pipeline");
  }
  if (arguments.action == "discard") {
    return change(context, **connection, "select pgtrickle.relay_dlq_discard($1::bigint)", id,
                  "discarded");
  }
  return change(context, **connection, "select pgtrickle.relay_dlq_purge($1::interval)",
                arguments.older_than, "purged");
}

}  // namespace relay::cli
