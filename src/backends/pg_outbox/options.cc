#include "backends/pg_outbox/options.h"

#include <fmt/core.h>

#include <array>
#include <string_view>

#include "config/option_table.h"

namespace relay::pg_outbox {

namespace {

using config::FieldType;
using config::fills;
using config::Option;

constexpr Option<Options> kSourceOptions[] = {
    {{.name = "url",
      .meaning = "the other database: postgresql://user:password@host:port/database?"
                 "sslmode=verify-full&sslrootcert=...",
      .required = true,
      .secret = true},
     fills<&Options::url>},
    {{.name = "outbox",
      .meaning = "the outbox there, by any name that database knows it by: the table or stream "
                 "table whose changes it holds, or an application outbox",
      .aliases = "stream_table",
      .one_of = "outbox",
      .plain = true},
     fills<&Options::outbox>},
    {{.name = "table",
      .meaning = "a plain table there, instead of an outbox: its rows are read as events, and "
                 "only ever inserted",
      .one_of = "outbox"},
     fills<&Options::table>},
    {{.name = "id_column",
      .default_text = "id",
      .meaning = "of table: the increasing id, which only the table's own inserts draw"},
     fills<&Options::id_column>},
    {{.name = "xid_column",
      .meaning = "of table: a column of type xid8 with default pg_current_xact_id(), for a table "
                 "whose ids something else draws as well"},
     fills<&Options::xid_column>},
    {{.name = "payload_column",
      .meaning = "of table: what becomes the payload; default: the whole row as JSON"},
     fills<&Options::payload_column>},
    {{.name = "event_id_column",
      .meaning = "of table: what becomes the event's id; default: made of pipeline and id"},
     fills<&Options::event_id_column>},
    {{.name = "event_type_column",
      .meaning = "of table: what becomes the event's type; default: insert"},
     fills<&Options::event_type_column>},
    {{.name = "key_column", .meaning = "of table: what becomes the event's key"},
     fills<&Options::key_column>},
    {{.name = "headers_column", .meaning = "of table: a JSON object of headers"},
     fills<&Options::headers_column>},
    {{.name = "created_at_column", .meaning = "of table: when the event was written"},
     fills<&Options::created_at_column>},
    {{.name = "group",
      .meaning = "under which group the position is kept; default: the relay's group and the "
                 "identity of its own database, so that two relays never share one"},
     fills<&Options::group>},
    {{.name = "poll_interval",
      .type = FieldType::duration,
      .default_text = "100ms",
      .meaning = "how often the other database is asked for news while there are none",
      .min = 0.001,
      .max = 3600},
     fills<&Options::poll_interval>},
    {{.name = "connect_timeout",
      .type = FieldType::duration,
      .default_text = "10s",
      .meaning = "how long connecting may take",
      .min = 0.01},
     fills<&Options::connect_timeout>},
};

constexpr auto kSourceFields = config::fields_of(kSourceOptions);

constexpr std::array<std::string_view, 8> kTableOptions = {
    "id_column",         "xid_column", "payload_column", "event_id_column",
    "event_type_column", "key_column", "headers_column", "created_at_column"};

}  // namespace

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<Options> parse_options(const config::Values& values) {
  auto options = config::filled<Options>(kSourceOptions, values);
  if (!options || options->outbox.empty()) return options;
  for (const std::string_view name : kTableOptions) {
    if (!values.has(name)) continue;
    return fail(ErrorClass::misconfigured, "which_outbox",
                fmt::format("{} is for a plain table, and an outbox is to be read", name),
                fmt::format("remove {}, or set table instead of outbox", name));
  }
  return options;
}

}  // namespace relay::pg_outbox
