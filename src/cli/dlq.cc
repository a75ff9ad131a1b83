#include <fmt/core.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/output.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};

constexpr std::string_view kOne =
    "select id, pipeline, relay_group_id as \"group\", message_id, subject, key, op, outbox_id, "
    "error_class, error_code, error_message, attempts, first_failed_at, last_failed_at, "
    "retry_requested_at, resolved_at, resolution, content_type, headers, "
    "pgtrickle.relay_payload_text(payload) as payload "
    "from pgtrickle.relay_dlq where id = $1::bigint";

/// `said` is printed; a {} in it is replaced by the result of the statement.
int change(const Context& context, postgres::Connection& connection, const std::string& sql,
           const std::string& argument, std::string_view said) {
  const auto done = connection.query(sql, {argument}, Deadline::after(kTimeout), {});
  if (!done) return failed(done.error());
  const std::string_view count = done->empty() ? std::string_view() : done->text(0, 0);
  if (context.json) {
    fmt::print("{{\"ok\":true{}}}\n", count.empty() ? "" : fmt::format(",\"count\":{}", count));
  } else {
    fmt::print("{}\n", fmt::format(fmt::runtime(said), count));
  }
  return kOk;
}

int show(const Context& context, postgres::Connection& connection, std::int64_t id) {
  if (context.json) return print_query(context, connection, kOne, {std::to_string(id)});
  const auto rows = connection.query(kOne, {std::to_string(id)}, Deadline::after(kTimeout), {});
  if (!rows) return failed(rows.error());
  if (rows->empty()) {
    return failed({ErrorClass::misconfigured,
                   "no_dead_letter",
                   fmt::format("there is no dead letter {}", id),
                   "`pgtrickle-relay dlq list` names those that there are",
                   {}});
  }
  print_record(*rows);
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
    return show(context, **connection, *arguments.id);
  }
  if (arguments.action == "retry") {
    if (!arguments.pipeline.empty()) {
      return change(context, **connection, "select pgtrickle.relay_dlq_retry_all($1)",
                    arguments.pipeline, "dead letters of the pipeline that will be sent again: {}");
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
                arguments.older_than, "resolved dead letters purged: {}");
}

}  // namespace relay::cli
