#include "backends/pg_inbox/options.h"

#include <fmt/core.h>

#include <array>

#include "backends/pg_inbox/row_values.h"
#include "core/text.h"

namespace relay::pg_inbox {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kSinkFields = {
    Field{.name = "url",
          .meaning = "the database of the inbox: postgresql://user:password@host:port/database?"
                     "sslmode=verify-full&sslrootcert=...; default: the relay's own",
          .secret = true},
    Field{.name = "inbox_name",
          .meaning = "the inbox pgtrickle.inbox_<name>; created if it is absent",
          .aliases = "name",
          .one_of = "inbox",
          .plain = true},
    Field{.name = "inbox_table",
          .meaning =
              "the table, instead of inbox_name: found by this name in the schema pgtrickle, "
              "else as qualified by its schema, else made in pgtrickle with exactly this name",
          .aliases = "table",
          .one_of = "inbox",
          .plain = true},
    Field{.name = "column_map",
          .type = FieldType::map,
          .meaning = "the column for each field, if the table's names differ: {event_id = \"id\", "
                     "payload = \"body\"}; an empty name leaves a field out",
          .aliases = "columns"},
    Field{.name = "max_retries",
          .type = FieldType::integer,
          .meaning = "failed tries after which a message of the inbox is a dead letter; default 3",
          .min = 1,
          .max = 1e6},
    Field{.name = "schedule", .meaning = "accepted; the views of an inbox are always fresh"},
    Field{.name = "with_dead_letter",
          .type = FieldType::boolean,
          .meaning = "whether the inbox sets dead letters apart; default true"},
    Field{.name = "retention_hours",
          .type = FieldType::integer,
          .meaning = "how long the inbox keeps processed messages, and so how long it knows "
                     "duplicates of them; default 72",
          .min = 1,
          .max = 1e6},
    Field{.name = "on_id_conflict",
          .type = FieldType::choice,
          .default_text = "store",
          .meaning = "what becomes of a message whose id the inbox has with another payload, key "
                     "or type: store: it is stored under a longer id; reject: it is a dead letter; "
                     "ignore: it counts as a duplicate",
          .choices = "store,reject,ignore"},
    Field{.name = "rows_per_statement",
          .type = FieldType::integer,
          .default_text = "2000",
          .meaning = "messages that one INSERT writes at most",
          .min = 1,
          .max = 100000},
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "10s",
          .meaning = "how long connecting to url may take",
          .min = 0.01},
    Field{.name = "operation_timeout",
          .type = FieldType::duration,
          .default_text = "30s",
          .meaning = "how long one statement may take",
          .min = 0.01},
};

OnIdConflict on_id_conflict(const std::string& word) {
  if (word == "reject") return OnIdConflict::reject;
  return word == "ignore" ? OnIdConflict::ignore : OnIdConflict::store;
}

Result<void> check_column_map(const std::map<std::string, std::string>& columns) {
  for (const auto& [field, column] : columns) {
    if (find_field(field)) {
      if ((field == "event_id" || field == "payload") && column.empty()) {
        return fail(ErrorClass::misconfigured, "bad_column_map",
                    fmt::format("column_map: {} cannot be left out", field));
      }
      continue;
    }
    const auto names = field_names();
    return fail(ErrorClass::misconfigured, "bad_column_map",
                fmt::format("column_map: a message has no \"{}\"", field),
                fmt::format("known are {}", join_names(names)));
  }
  return {};
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

Result<Options> parse_options(const config::Values& values) {
  Options options;
  options.url = values.text("url");
  options.inbox_name = values.text("inbox_name");
  options.inbox_table = values.text("inbox_table");
  options.column_map = values.map("column_map");
  if (auto checked = check_column_map(options.column_map); !checked) return fail(checked.error());
  if (values.has("max_retries")) options.max_retries = values.integer("max_retries");
  if (values.has("schedule")) options.schedule = values.text("schedule");
  if (values.has("with_dead_letter")) options.with_dead_letter = values.boolean("with_dead_letter");
  if (values.has("retention_hours")) options.retention_hours = values.integer("retention_hours");
  options.on_id_conflict = on_id_conflict(values.text("on_id_conflict"));
  options.rows_per_statement = static_cast<std::size_t>(values.integer("rows_per_statement"));
  options.connect_timeout = values.duration("connect_timeout");
  options.operation_timeout = values.duration("operation_timeout");
  return options;
}

}  // namespace relay::pg_inbox
