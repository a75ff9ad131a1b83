// The sources `outbox` and `alerts`: outboxes of the relay's own database.
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

constexpr Option<OutboxOptions> kGroup = {
    {.name = "group",
     .meaning = "consumer group to read through, for readers that share an outbox",
     .plain = true,
     .no_reference = true},
    fills<&OutboxOptions::group>};

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
    kGroup,
};
constexpr auto kFields = config::fields_of(kOptions);

constexpr Option<OutboxOptions> kAlertOptions[] = {kGroup};
constexpr auto kAlertFields = config::fields_of(kAlertOptions);

/// Alerts are recorded in this outbox from when a first pipeline reads them.
constexpr std::string_view kAlertOutbox = "outbox_pg_trickle_alert";
constexpr std::string_view kOpenAlerts = "select from pgtrickle.relay_open_alerts()";

std::string name_in(const config::Values& values) {
  auto options = config::filled<OutboxOptions>(kOptions, values);
  return options ? std::move(options->outbox) : std::string();
}

std::unique_ptr<Source> make_source(OutboxOptions options, const config::Values& values,
                                    const BackendContext& context) {
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
  options.held = context.held;
  auto wake = context.wake ? context.wake : std::make_shared<Wake>();
  return std::make_unique<OutboxSource>(std::move(options), context.database, std::move(wake));
}

Result<std::unique_ptr<Source>> make(const config::Values& values, const BackendContext& context) {
  auto options = config::filled<OutboxOptions>(kOptions, values);
  if (!options) return fail(options.error());
  return make_source(std::move(*options), values, context);
}

Result<std::unique_ptr<Source>> make_alerts(const config::Values& values,
                                            const BackendContext& context) {
  auto options = config::filled<OutboxOptions>(kAlertOptions, values);
  if (!options) return fail(options.error());
  options->outbox = kAlertOutbox;
  options->before_open = kOpenAlerts;
  return make_source(std::move(*options), values, context);
}

}  // namespace

void register_backend(Registry& registry) {
  registry.add(SourceType{.name = "outbox",
                          .aliases = {},
                          .options = kFields,
                          .reads_outbox = true,
                          .make = make,
                          .own_outboxes = OwnOutboxes{name_in, look_for_gone_rows}});
  registry.add(SourceType{
      .name = "alerts",
      .aliases = {},
      .options = kAlertFields,
      .reads_outbox = true,
      .make = make_alerts,
      .own_outboxes = OwnOutboxes{[](const config::Values&) { return std::string(kAlertOutbox); },
                                  look_for_gone_rows, true}});
}

}  // namespace relay::outbox
