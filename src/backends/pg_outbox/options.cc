#include "backends/pg_outbox/options.h"

#include <fmt/core.h>

#include <array>
#include <string_view>

namespace relay::pg_outbox {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kSourceFields = {
    Field{.name = "url",
          .meaning = "the other database: postgresql://user:password@host:port/database?"
                     "sslmode=verify-full&sslrootcert=...",
          .required = true,
          .secret = true},
    Field{.name = "outbox",
          .meaning = "the outbox there, by any name that database knows it by: the table or stream "
                     "table whose changes it holds, or an application outbox",
          .aliases = "stream_table",
          .one_of = "outbox",
          .plain = true},
    Field{.name = "table",
          .meaning = "a plain table there, instead of an outbox: its rows are read as events, and "
                     "only ever inserted",
          .one_of = "outbox"},
    Field{.name = "id_column",
          .default_text = "id",
          .meaning = "of table: the increasing id, which only the table's own inserts draw"},
    Field{.name = "xid_column",
          .meaning =
              "of table: a column of type xid8 with default pg_current_xact_id(), for a table "
              "whose ids something else draws as well"},
    Field{.name = "payload_column",
          .meaning = "of table: what becomes the payload; default: the whole row as JSON"},
    Field{.name = "event_id_column",
          .meaning = "of table: what becomes the event's id; default: made of pipeline and id"},
    Field{.name = "event_type_column",
          .meaning = "of table: what becomes the event's type; default: insert"},
    Field{.name = "key_column", .meaning = "of table: what becomes the event's key"},
    Field{.name = "headers_column", .meaning = "of table: a JSON object of headers"},
    Field{.name = "created_at_column", .meaning = "of table: when the event was written"},
    Field{.name = "group",
          .meaning = "under which group the position is kept; default: the relay's group and the "
                     "identity of its own database, so that two relays never share one"},
    Field{.name = "poll_interval",
          .type = FieldType::duration,
          .default_text = "100ms",
          .meaning = "how often the other database is asked for news while there are none",
          .min = 0.001,
          .max = 3600},
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "10s",
          .meaning = "how long connecting may take",
          .min = 0.01},
};

constexpr std::array<std::string_view, 8> kTableOptions = {
    "id_column",         "xid_column", "payload_column", "event_id_column",
    "event_type_column", "key_column", "headers_column", "created_at_column"};

}  // namespace

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<Options> parse_options(const config::Values& values) {
  Options options;
  options.url = values.text("url");
  options.outbox = values.text("outbox");
  options.table = values.text("table");
  if (!options.outbox.empty()) {
    for (const std::string_view name : kTableOptions) {
      if (!values.has(name)) continue;
      return fail(ErrorClass::misconfigured, "which_outbox",
                  fmt::format("{} is for a plain table, and an outbox is to be read", name),
                  fmt::format("remove {}, or set table instead of outbox", name));
    }
  }
  options.id_column = values.text("id_column");
  options.xid_column = values.text("xid_column");
  options.payload_column = values.text("payload_column");
  options.event_id_column = values.text("event_id_column");
  options.event_type_column = values.text("event_type_column");
  options.key_column = values.text("key_column");
  options.headers_column = values.text("headers_column");
  options.created_at_column = values.text("created_at_column");
  options.group = values.text("group");
  options.poll_interval = values.duration("poll_interval");
  options.connect_timeout = values.duration("connect_timeout");
  return options;
}

}  // namespace relay::pg_outbox
