#include <nats/nats.h>

#include <algorithm>
#include <memory>

#include "backends/nats/options.h"
#include "backends/nats/sink.h"
#include "backends/nats/source.h"
#include "backends/nats/source_options.h"
#include "backends/nats/subject.h"
#include "connector/registry.h"
#include "core/text.h"

namespace relay::nats {

void register_backend(Registry& registry);

namespace {

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_source_options(values, context.consumer_name());
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  options->connection.pipeline = context.pipeline;
  options->connection.looks_only = context.looks_only;
  EventRules rules{context.id_scope(), context.options.max_record_bytes};
  return std::make_unique<NatsSource>(std::move(*options), std::move(rules), std::move(*mapping));
}

Result<std::unique_ptr<Sink>> make_sink(const config::Values& values,
                                        const BackendContext& context) {
  const auto& subject_template = context.options.subject_template;
  auto options = parse_options(values, subject_template);
  if (!options) return fail(options.error());
  if (values.has("subject") && subject_template && default_subject(values) != *subject_template) {
    return fail(ErrorClass::misconfigured, "two_values", "subject_template and subject differ",
                "give one of them");
  }
  options->pipeline = context.pipeline;
  options->looks_only = context.looks_only;
  options->limits.allows_rollup = std::ranges::any_of(
      context.options.headers,
      [](const auto& header) { return equal_ignoring_case(header.first, "Nats-Rollup"); });
  if (!context.ordered) options->key_order = KeyOrder::pipelined;
  return std::make_unique<NatsSink>(std::move(*options));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"nats.c", nats_GetVersion()});
  registry.add(SourceType{
      .name = "nats", .aliases = {"jetstream"}, .options = source_fields(), .make = &make_source});
  registry.add(SinkType{.name = "nats",
                        .aliases = {"jetstream"},
                        .options = sink_fields(),
                        .subject_option = {},
                        .escape_of = &escape_of,
                        .headers = {&is_protocol_header, kSettableHeaders},
                        .make = &make_sink,
                        .default_subject = &default_subject,
                        .cloudevents = {"ce-", true, "content-type"}});
}

}  // namespace relay::nats
