// The source `outbox`: outboxes of the relay's own database.
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "connector/registry.h"
#include "outbox/gone_rows.h"
#include "outbox/outbox_source.h"

namespace relay::outbox {

void register_backend(Registry& registry);

namespace {

using config::Field;

constexpr std::array kFields = {
    Field{.name = "stream_table",
          .meaning = "the table or stream table whose outbox is read",
          .aliases = "table",
          .one_of = "outbox",
          .plain = true,
          .no_reference = true},
    Field{.name = "outbox",
          .meaning = "the application outbox that is read",
          .one_of = "outbox",
          .plain = true,
          .no_reference = true},
    Field{.name = "group",
          .meaning = "consumer group to read through, for readers that share an outbox",
          .plain = true,
          .no_reference = true},
};

std::string name_in(const config::Values& values) {
  for (const std::string_view option : {"outbox", "stream_table"}) {
    if (values.has(option)) return values.text(option);
  }
  return {};
}

Result<std::unique_ptr<Source>> make(const config::Values& values, const BackendContext& context) {
  OutboxOptions options;
  options.outbox = name_in(values);
  options.owns = !context.looks_only;
  // A source that owns no position has none that says which outbox it reads.
  if (options.owns) options.group = values.has("group") ? values.text("group") : context.group;
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
