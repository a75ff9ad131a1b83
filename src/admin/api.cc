#include "admin/api.h"

#include <fmt/core.h>

#include <charconv>

#include "admin/access.h"
#include "admin/change.h"
#include "config/redaction.h"
#include "core/log.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::admin {

namespace {

// A database that hangs must not occupy the server's workers for long.
constexpr std::chrono::seconds kTimeout{3};

constexpr std::int64_t kMostLetters = 1000;

// Without key, payload and headers: these hold the user's data, and only roles that may read the
// table may see them.
constexpr std::string_view kLetters =
    "select coalesce(json_agg(d order by d.id), '[]')::text, count(*) from ("
    "select id, relay_group_id as \"group\", pipeline, message_id, subject, op, outbox_id, "
    "error_class, error_code, error_message, attempts, first_failed_at, last_failed_at, "
    "retry_requested_at from {} "
    "where resolved_at is null and ($1 = '' or pipeline = $1) order by id limit $2::bigint) d";

Result<postgres::Rows> query(postgres::Pool& pool, std::string_view sql,
                             std::span<const postgres::Param> params, Deadline deadline) {
  auto lease = pool.borrow(deadline, {});
  if (!lease) return fail(lease.error());
  return (*lease)->query(sql, params, deadline, {});
}

HttpResponse failure(const Error& error) {
  return problem_response(status_of(error), error.message, error.remedy);
}

std::string in_query(const HttpRequest& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? std::string() : found->second;
}

/// How many rows the request asks for; empty if `limit` is not a number of at least 1.
std::optional<std::int64_t> limit_of(const HttpRequest& request) {
  const std::string text = in_query(request, "limit");
  if (text.empty()) return 100;
  std::int64_t limit = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
  if (error != std::errc() || end != text.data() + text.size() || limit < 1) return std::nullopt;
  return std::min(limit, kMostLetters);
}

HttpResponse refuse(Access access) {
  if (access == Access::closed) {
    return problem_response(403, "nothing can be changed here: no token is configured",
                            "start the relay with --admin-token or PGTRICKLE_RELAY_ADMIN_TOKEN");
  }
  HttpResponse response = problem_response(401, "the token is missing or wrong",
                                           "send the header Authorization: Bearer TOKEN");
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace

HttpResponse json_response(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.content_type = "application/json";
  response.body = std::move(body) + "\n";
  return response;
}

HttpResponse problem_response(int status, std::string_view what, std::string_view remedy) {
  std::string body = fmt::format(R"({{"error":{})", json_string(secrets::masked(what)));
  if (!remedy.empty()) {
    body += fmt::format(R"(,"remedy":{})", json_string(secrets::masked(remedy)));
  }
  return json_response(status, body + "}");
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html
int status_of(const Error& error) {
  const std::string_view code = error.code;
  if (code == "42704") return 404;                     // undefined_object: no such pipeline
  if (code == "02000" || code == "P0002") return 404;  // no_data, no_data_found
  if (code == "42501") return 403;                     // insufficient_privilege
  if (code.starts_with("22")) return 400;              // data_exception
  if (code.starts_with("55")) return 409;              // not as things stand
  const bool away =
      error.error_class == ErrorClass::transient || error.error_class == ErrorClass::cancelled;
  return away ? 503 : 500;
}

HttpResponse Api::dead_letters(const HttpRequest& request) {
  const auto limit = limit_of(request);
  if (!limit) return problem_response(400, "limit is a number of at least 1");
  const std::string wanted = in_query(request, "pipeline");
  const Deadline deadline = Deadline::after(kTimeout);
  std::int64_t left = *limit;
  std::string list;
  for (const status::DeadLetters& letters : instance_.dead_letters()) {
    if (!wanted.empty() && !letters.pipeline.empty() && letters.pipeline != wanted) continue;
    const std::string& pipeline = letters.pipeline.empty() ? wanted : letters.pipeline;
    const postgres::Param params[] = {pipeline, std::to_string(left)};
    const auto rows = query(*letters.pool, fmt::format(kLetters, letters.table), params, deadline);
    if (!rows) return failure(rows.error());
    if (rows->integer(0, 1) == 0) continue;
    left -= rows->integer(0, 1);
    const std::string shown = config::redacted_rows(rows->text(0, 0));
    if (!list.empty()) list += ',';
    list += std::string_view(shown).substr(1, shown.size() - 2);
    if (left == 0) break;
  }
  return json_response(200, "[" + list + "]");
}

HttpResponse Api::change(const HttpRequest& request) {
  if (const Access access = access_of(request, admin_token_); access != Access::granted) {
    return refuse(access);
  }
  const auto change = change_of(request);
  if (!change) return problem_response(400, change.error().message, change.error().remedy);
  if (!*change)
    return problem_response(404, fmt::format("nothing can be done at {}", request.path));
  postgres::Pool* const pool = instance_.changes();
  if (pool == nullptr) return refuse(Access::closed);
  const auto done =
      query(*pool, (*change)->route->sql, (*change)->params, Deadline::after(kTimeout));
  if (!done) return failure(done.error());
  log::info("api", "", "{}: done", request.path);
  const std::string_view result = (*change)->route->result;
  if (result.empty()) return json_response(200, R"({"ok":true})");
  return json_response(
      200, fmt::format(R"({{"ok":true,{}:{}}})", json_string(result), done->text(0, 0)));
}

}  // namespace relay::admin
