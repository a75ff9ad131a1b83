// The source `stream`: the events of postgres-stream.
#include <memory>
#include <utility>

#include "config/option_table.h"
#include "connector/registry.h"
#include "core/uuid.h"
#include "postgres/pool.h"
#include "stream/stream_source.h"
#include "stream/table_source.h"

namespace relay::stream {

void register_backend(Registry& registry);

namespace {

using config::FieldType;
using config::fills;
using config::Option;

constexpr config::Choice<Reader> kReaders[] = {{"wal", Reader::wal}, {"table", Reader::table}};

constexpr Option<StreamOptions> kOptions[] = {
    {{.name = "stream",
      .type = FieldType::integer,
      .meaning = "the id of the stream whose subscriptions are delivered",
      .required = true,
      .min = 1},
     fills<&StreamOptions::id>},
    {{.name = "url",
      .meaning = "the stream's database, as a role with REPLICATION; default: the relay's own",
      .secret = true},
     fills<&StreamOptions::database, &postgres::Connection::Options::url>},
    {{.name = "reader",
      .type = FieldType::choice,
      .default_text = "wal",
      .meaning = "wal: logical replication, in the order of commits; table: queries, for a server "
                 "or role that may not replicate, in the order in which each row was changed",
      .choices = "wal,table"},
     config::fills_choice<kReaders, &StreamOptions::reader>},
    {{.name = "poll_interval",
      .type = FieldType::duration,
      .default_text = "100ms",
      .meaning = "of reader table: how often it asks for news while there are none",
      .min = 0.001,
      .max = 3600},
     fills<&StreamOptions::poll_interval>},
    {{.name = "failover_after",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "how long an event may wait for the sink before the log is released, and events "
                 "are read from the table instead",
      .min = 0.1},
     fills<&StreamOptions::spool, &SpoolLimits::after>},
    {{.name = "failover_wal",
      .type = FieldType::integer,
      .default_text = "67108864",
      .meaning = "the same, once this many bytes of the log are held back",
      .min = 1048576},
     fills<&StreamOptions::spool, &SpoolLimits::wal>},
};

constexpr auto kFields = config::fields_of(kOptions);

Result<std::unique_ptr<Source>> make(const config::Values& values, const BackendContext& context) {
  auto options = config::filled<StreamOptions>(kOptions, values);
  if (!options) return fail(options.error());
  if (options->database.url.empty() && context.database != nullptr) {
    options->database = context.database->options();
  } else {
    options->database.host_credentials = !context.from_catalog;
  }
  options->database.application_name = "postgres-stream " + context.pipeline;
  options->database.keepalive = true;
  options->owner = new_uuid();
  if (options->reader == Reader::table) return std::make_unique<TableSource>(std::move(*options));
  return std::make_unique<StreamSource>(std::move(*options));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.add(SourceType{.name = "stream", .aliases = {}, .options = kFields, .make = make});
}

}  // namespace relay::stream
