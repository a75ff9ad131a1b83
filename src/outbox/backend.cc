// The source `outbox`: outboxes of the relay's own database.
#include <memory>
#include <string>
#include <utility>

#include "config/option_table.h"
#include "connector/registry.h"
#include "outbox/gone_rows.h"
#include "outbox/outbox_source.h"

namespace relay::outbox {

void register_backend(Registry& registry);

namespace {

using config::fills;
using config::Option;

constexpr Option<OutboxOptions> kOptions[] = {
    {{.name = "stream_table",
      .meaning = "the table or stream table whose outbox is read",
      .aliases = "table",
      .one_of = "outbox",
      .plain = true,
      .no_reference = true},
     fills<&OutboxOptions::outbox>},
    {{.name = "outbox",
      .meaning = "the application outbox that is read",
      .one_of = "outbox",
      .plain = true,
      .no_reference = true},
     fills<&OutboxOptions::outbox>},
    {{.name = "group",
      .meaning = "consumer group to read through, for readers that share an outbox",
      .plain = true,
      .no_reference = true},
     fills<&OutboxOptions::group>},
};

constexpr auto kFields = config::fields_of(kOptions);

std::string name_in(const config::Values& values) {
  auto options = config::filled<OutboxOptions>(kOptions, values);
  return options ? std::move(options->outbox) : std::string();
}

Result<std::unique_ptr<Source>> make(const config::Values& values, const BackendContext& context) {
  auto filled = config::filled<OutboxOptions>(kOptions, values);
  if (!filled) return fail(filled.error());
  OutboxOptions& options = *filled;
  options.owns = !context.looks_only;
  if (!values.has("group")) options.group = context.group;
  // A source that owns no position has none that says which outbox it reads.
  if (!options.owns) options.group.clear();
  options.pipeline = context.pipeline;
  options.worker_id = context.worker_id;
  options.start = context.options.start;
  options.max_record_bytes = context.options.max_record_bytes;
  options.delta_max_rows = context.options.delta_max_rows;
  options.settled = context.settled;
  auto wake = context.wake ? context.wake : std::make_shared<Wake>();
  return std::make_unique<OutboxSource>(std::move(options), context.database, std::move(wake));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.add(SourceType{.name = "outbox",
                          .aliases = {},
                          .options = kFields,
                          .reads_outbox = true,
                          .make = make,
                          .own_outboxes = OwnOutboxes{name_in, look_for_gone_rows}});
}

}  // namespace relay::outbox
