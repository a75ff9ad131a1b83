#include "backends/pg_inbox/options.h"

#include <fmt/core.h>

#include "backends/pg_inbox/row_values.h"
#include "config/option_table.h"
#include "core/text.h"

namespace relay::pg_inbox {

namespace {

using config::FieldType;
using config::fills;
using config::fills_choice;
using config::Option;

constexpr config::Choice<OnIdConflict> kConflicts[] = {{"store", OnIdConflict::store},
                                                       {"reject", OnIdConflict::reject},
                                                       {"ignore", OnIdConflict::ignore}};

constexpr Option<Options> kSinkOptions[] = {
    {{.name = "url",
      .meaning = "the database of the inbox: postgresql://user:password@host:port/database?"
                 "sslmode=verify-full&sslrootcert=...; default: the relay's own",
      .secret = true},
     fills<&Options::url>},
    {{.name = "inbox_name",
      .meaning = "the inbox pgtrickle.inbox_<name>; created if it is absent",
      .aliases = "name",
      .one_of = "inbox",
      .plain = true},
     fills<&Options::inbox_name>},
    {{.name = "inbox_table",
      .meaning = "the table, instead of inbox_name: found by this name in the schema pgtrickle, "
                 "else as qualified by its schema, else made in pgtrickle with exactly this name",
      .aliases = "table",
      .one_of = "inbox",
      .plain = true},
     fills<&Options::inbox_table>},
    {{.name = "column_map",
      .type = FieldType::map,
      .meaning = "the column for each field, if the table's names differ: {event_id = \"id\", "
                 "payload = \"body\"}; an empty name leaves a field out",
      .aliases = "columns"},
     fills<&Options::column_map>},
    {{.name = "max_retries",
      .type = FieldType::integer,
      .meaning = "failed tries after which a message of the inbox is a dead letter; default 3",
      .min = 1,
      .max = 1e6},
     fills<&Options::max_retries>},
    {{.name = "schedule", .meaning = "accepted; the views of an inbox are always fresh"},
     fills<&Options::schedule>},
    {{.name = "with_dead_letter",
      .type = FieldType::boolean,
      .meaning = "whether the inbox sets dead letters apart; default true"},
     fills<&Options::with_dead_letter>},
    {{.name = "retention_hours",
      .type = FieldType::integer,
      .meaning = "how long the inbox keeps processed messages, and so how long it knows "
                 "duplicates of them; default 72",
      .min = 1,
      .max = 1e6},
     fills<&Options::retention_hours>},
    {{.name = "on_id_conflict",
      .type = FieldType::choice,
      .default_text = "store",
      .meaning = "what becomes of a message whose id the inbox has with another payload, key "
                 "or type: store: it is stored under a longer id; reject: it is a dead letter; "
                 "ignore: it counts as a duplicate",
      .choices = "store,reject,ignore"},
     fills_choice<kConflicts, &Options::on_id_conflict>},
    {{.name = "rows_per_statement",
      .type = FieldType::integer,
      .default_text = "2000",
      .meaning = "messages that one INSERT writes at most",
      .min = 1,
      .max = 100000},
     fills<&Options::rows_per_statement>},
    {{.name = "connect_timeout",
      .type = FieldType::duration,
      .default_text = "10s",
      .meaning = "how long connecting to url may take",
      .min = 0.01},
     fills<&Options::connect_timeout>},
    {{.name = "operation_timeout",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "how long one statement may take",
      .min = 0.01},
     fills<&Options::operation_timeout>},
};

constexpr auto kSinkFields = config::fields_of(kSinkOptions);

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
  auto options = config::filled<Options>(kSinkOptions, values);
  if (!options) return options;
  if (auto checked = check_column_map(options->column_map); !checked) {
    return fail(checked.error());
  }
  return options;
}

}  // namespace relay::pg_inbox
