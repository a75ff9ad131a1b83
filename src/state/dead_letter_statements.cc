#include "state/dead_letter_statements.h"

#include <fmt/core.h>

namespace relay::state {

namespace {

// {0} is the table.
constexpr std::string_view kStore =
    "insert into {0} as d (relay_group_id, pipeline, message_id, subject, key, op, "
    "payload, content_type, headers, outbox_id, error_class, error_code, error_message, attempts) "
    "values ($1, $2, $3, $4, nullif($5, ''), $6, $7::bytea, $8, $9::jsonb, nullif($10::bigint, 0), "
    "$11, $12, $13, $14::int) "
    "on conflict (relay_group_id, pipeline, md5(message_id), coalesce(md5(payload), ''), "
    "coalesce(md5(key), ''), coalesce(md5(op), '')) where resolved_at is null do update set "
    "attempts = d.attempts + 1, error_class = excluded.error_class, "
    "error_code = excluded.error_code, error_message = excluded.error_message, "
    "last_failed_at = clock_timestamp(), retry_requested_at = null";

// Not more than fits in memory at once, but one always.
constexpr std::string_view kTake =
    "select id, message_id, coalesce(subject, ''), coalesce(key, ''), coalesce(op, ''), "
    "encode(payload, 'hex'), coalesce(content_type, ''), coalesce(outbox_id, 0), attempts, "
    "coalesce(error_class, ''), coalesce(error_code, ''), coalesce(error_message, ''), "
    "(select coalesce(max(case when e.retry_requested_at is null then 2 else 1 end), 0) "
    "from {0} e where e.relay_group_id = d.relay_group_id "
    "and e.pipeline = d.pipeline and e.resolved_at is null and md5(e.key) = md5(d.key) "
    "and e.key = d.key and e.id < d.id) "
    "from {0} d where id in (select id from "
    "(select id, row_number() over w as number, sum(octet_length(payload)) over w as bytes from "
    "(select id, payload from {0} where relay_group_id = $1 and pipeline = $2 "
    "and resolved_at is null and retry_requested_at is not null order by id limit $3) asked "
    "window w as (order by id)) summed where number = 1 or bytes <= 8388608) order by id";

constexpr std::string_view kTakeHeaders =
    "select d.id, h.key, coalesce(h.value, '') from {0} d, "
    "lateral jsonb_each_text(case when jsonb_typeof(d.headers) = 'object' then d.headers else "
    "'{{}}' "
    "end) with ordinality h(key, value, n) where d.id = any ($1::bigint[]) order by d.id, h.n";

constexpr std::string_view kResolve =
    "update {0} set resolved_at = clock_timestamp(), resolution = 'retried', "
    "retry_requested_at = null where id = $1 and resolved_at is null";

constexpr std::string_view kFailAgain =
    "update {0} set attempts = attempts + 1, retry_requested_at = null, "
    "last_failed_at = clock_timestamp(), error_class = $2, error_code = $3, error_message = $4 "
    "where id = $1 and resolved_at is null";

constexpr std::string_view kParkedKeys =
    "select distinct key from {0} "
    "where relay_group_id = $1 and pipeline = $2 and resolved_at is null and key is not null";

}  // namespace

DeadLetterStatements::DeadLetterStatements(std::string_view table)
    : store(fmt::format(kStore, table)),
      take(fmt::format(kTake, table)),
      take_headers(fmt::format(kTakeHeaders, table)),
      resolve(fmt::format(kResolve, table)),
      fail_again(fmt::format(kFailAgain, table)),
      parked_keys(fmt::format(kParkedKeys, table)) {}

const DeadLetterStatements& relay_dead_letters() {
  static const DeadLetterStatements statements("pgtrickle.relay_dlq");
  return statements;
}

}  // namespace relay::state
