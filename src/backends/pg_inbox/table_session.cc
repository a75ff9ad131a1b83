#include "backends/pg_inbox/table_session.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace relay::pg_inbox {

namespace {

// This statement writes WAL, so that its commit waits like that of a row. (A pooler may have
// dropped the settings of the session.)
constexpr std::string_view kConfirm =
    "select pg_catalog.pg_logical_emit_message(true, 'pgtrickle'::text, ''::text), "
    "case when pg_catalog.current_setting('synchronous_commit') in ('off', 'local') "
    "then pg_catalog.set_config('synchronous_commit', 'on', true) end "
    "where pg_catalog.current_setting('synchronous_standby_names') <> ''";

std::vector<std::string_view> finished(std::span<BinaryArray> arrays) {
  std::vector<std::string_view> params;
  for (BinaryArray& array : arrays) params.push_back(array.finish());
  return params;
}

}  // namespace

bool TableSession::failed_by_server() const {
  return !ok() || diagnosis().state.empty() || blame_for(diagnosis()) == Blame::server;
}

Error TableSession::judge(Error error, const postgres::Diagnosis& diagnosis,
                          const Message* message) const {
  const char* const role = PQuser(connection_.handle());
  const Destination to{connection_.endpoint(), target_.table,
                       postgres::Connection::quote_identifier(role == nullptr ? "" : role)};
  return pg_inbox::judge(std::move(error), diagnosis, to, message);
}

std::vector<BinaryArray> TableSession::values(std::span<const Message> messages) const {
  return values(target_.columns, messages, false);
}

std::vector<BinaryArray> TableSession::values(std::span<const Target::Column> columns,
                                              std::span<const Message> messages, bool raw) const {
  std::vector<BinaryArray> arrays;
  arrays.reserve(columns.size());
  for (const Target::Column& column : columns) {
    BinaryArray& array =
        arrays.emplace_back(column.kind == ColumnKind::bytes ? BinaryArray::Element::bytea
                                                             : BinaryArray::Element::text);
    for (const Message& message : messages) {
      add_value(array, column.field, column.kind, message, options_.pipeline, raw);
    }
  }
  return arrays;
}

bool TableSession::start(std::span<BinaryArray> values) {
  return connection_.send_binary(target_.insert, finished(values), due(), stop_).has_value();
}

Result<postgres::Rows> TableSession::take() {
  return connection_.take_rows(due(), stop_);
}

Result<postgres::Rows> TableSession::insert(std::span<const Message> messages, bool raw) {
  auto arrays = values(target_.columns, messages, raw);
  return connection_.query_binary(target_.insert, finished(arrays), due(), stop_);
}

Result<std::vector<Found>> TableSession::look(std::span<const Message> messages, bool raw) {
  auto arrays = values(target_.compared(), messages, raw);
  auto params = finished(arrays);
  params.push_back(target_.table);
  const auto rows = connection_.query_binary(target_.look, params, due(), stop_);
  if (!rows) return fail(rows.error());
  std::vector<Found> found;
  for (int row = 0; row < rows->size(); ++row) {
    found.push_back({.id = std::string(rows->text(row, 0)),
                     .found = rows->boolean(row, 1),
                     .same = rows->boolean(row, 2),
                     .changes = rows->boolean(row, 3) || target_.may_change_rows,
                     .hides = rows->boolean(row, 4)});
  }
  return found;
}

Result<bool> TableSession::refuses_payload(const Message& message) {
  const auto column =
      std::find_if(target_.columns.begin(), target_.columns.end(),
                   [](const Target::Column& c) { return c.field == InboxField::payload; });
  if (column->kind != ColumnKind::json || message.tombstone) return false;
  const std::string_view params[] = {message.body};
  const auto taken = connection_.query_binary(
      "select $1::pg_catalog.text::pg_catalog.jsonb is null", params, due(), stop_);
  if (taken) return false;
  if (is_about_a_value(taken.error())) return true;
  return fail(taken.error());
}

Result<void> TableSession::look_at_table() {
  const auto target = open_target(connection_, options_, due(), stop_);
  if (!target) return fail(target.error());
  return {};
}

Result<std::optional<Blame>> TableSession::try_to_insert(Message message, std::string_view free_id,
                                                         int share) {
  const std::string begin =
      fmt::format("begin; set local statement_timeout = {}",
                  std::max<std::int64_t>(options_.operation_timeout.count() / share, 1));
  if (auto begun = connection_.script(begin, due(), stop_); !begun) return fail(begun.error());
  auto rows = insert(std::span(&message, 1), false);
  if (rows && rows->empty()) {
    message.id = free_id;
    rows = insert(std::span(&message, 1), false);
  }
  Result<void> done;
  if (!rows) done = fail(rows.error());
  // Deferred constraints and triggers count as well.
  if (done) done = connection_.script("set constraints all immediate", due(), stop_);
  std::optional<Blame> blame;
  if (!done) {
    if (!ok()) return fail(done.error());
    blame = blame_for(diagnosis());
  } else if (rows->empty()) {
    blame = Blame::row;  // a row with that id is there, so this proves nothing
  }
  if (auto undone = end(false); !undone) return fail(undone.error());
  return blame;
}

Result<void> TableSession::begin_patiently() {
  const auto limit = options_.operation_timeout.count();
  const std::string begin =
      fmt::format("begin; set local lock_timeout = {}; set local statement_timeout = {}",
                  std::max<std::int64_t>(limit / 2, 1), std::max<std::int64_t>(limit * 3 / 4, 1));
  return connection_.script(begin, due(), stop_);
}

Result<void> TableSession::end(bool commit) {
  return connection_.script(commit ? "commit" : "rollback", due(), stop_);
}

Result<void> TableSession::confirm() {
  if (!ok()) return fail(ErrorClass::transient, "connection", "the session has ended");
  const auto done = connection_.query(kConfirm, {}, due(), stop_);
  if (!done) return fail(judge(done.error(), nullptr));
  return {};
}

}  // namespace relay::pg_inbox
