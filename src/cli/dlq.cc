#include <fmt/core.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/follow.h"
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

/// Of the dead letters that were asked for, those that are no longer asked for. $1: the id of one,
/// or the name of a pipeline.
constexpr std::string_view kRetried =
    "select $2::bigint - count(*), $2::bigint, count(*) = 0 from pgtrickle.relay_dlq d "
    "where d.retry_requested_at is not null and d.resolved_at is null and ";

/// Waits until the relay has tried the dead letters, and says how many are left.
int follow_retry(const Context& context, postgres::Connection& connection,
                 const DlqArguments& arguments, std::string_view count) {
  std::fflush(stdout);
  const bool all = !arguments.pipeline.empty();
  const std::string argument = all ? arguments.pipeline : std::to_string(*arguments.id);
  const std::string which = all ? "d.pipeline = $1" : "d.id = $1::bigint";
  std::string query(kRetried);
  for (auto at = query.find("$2"); at != query.npos; at = query.find("$2")) {
    query.replace(at, 2, count);
  }
  const auto followed = follow(context, connection, "sending again", query + which, argument,
                               arguments.wait.value_or(false));
  if (!followed) return failed(followed.error());
  if (*followed == Followed::left) fmt::print(stderr, "the relay goes on with it\n");
  if (*followed == Followed::no_relay) {
    fmt::print(stderr, "no relay is running: they are sent when one is started\n");
  }
  if (*followed != Followed::finished) return kOk;
  const auto left = connection.query(
      "select count(*) from pgtrickle.relay_dlq d where d.resolved_at is null and " + which,
      {argument}, Deadline::after(kTimeout), {});
  if (!left) return failed(left.error());
  if (left->integer(0, 0) > 0) {
    return failed({ErrorClass::rejected,
                   "failed_again",
                   fmt::format("{} failed again or are new", left->text(0, 0)),
                   "`pgtrickle-relay dlq list` shows why",
                   {}});
  }
  if (!context.json) fmt::print("all of them were sent\n");
  return kOk;
}

/// `said` is printed; a {} in it is replaced by the result of the statement, which `result`
/// receives.
int change(const Context& context, postgres::Connection& connection, const std::string& sql,
           const std::string& argument, std::string_view said, std::string* result = nullptr) {
  const auto done = connection.query(sql, {argument}, Deadline::after(kTimeout), {});
  if (!done) return failed(done.error());
  const std::string_view count = done->empty() ? std::string_view() : done->text(0, 0);
  if (result) *result = count;
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

int retry(const Context& context, postgres::Connection& connection, const DlqArguments& arguments) {
  const bool all = !arguments.pipeline.empty();
  if (all == arguments.id.has_value()) {
    return usage("give the id of a dead letter, or --all PIPELINE");
  }
  std::string count = "1";
  const int code = all ? change(context, connection, "select pgtrickle.relay_dlq_retry_all($1)",
                                arguments.pipeline,
                                "dead letters of the pipeline that will be sent again: {}", &count)
                       : change(context, connection, "select pgtrickle.relay_dlq_retry($1::bigint)",
                                std::to_string(*arguments.id),
                                "it will be sent again by the owner of its pipeline");
  if (code != kOk || count == "0" || !waits(context, arguments.wait)) return code;
  return follow_retry(context, connection, arguments, count);
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
    return retry(context, **connection, arguments);
  }
  if (arguments.action == "discard") {
    return change(context, **connection, "select pgtrickle.relay_dlq_discard($1::bigint)", id,
                  "discarded");
  }
  return change(context, **connection, "select pgtrickle.relay_dlq_purge($1::interval)",
                arguments.older_than, "resolved dead letters purged: {}");
}

}  // namespace relay::cli
