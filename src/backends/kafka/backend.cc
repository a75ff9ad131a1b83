#include <librdkafka/rdkafka.h>

#include <memory>

#include "backends/kafka/options.h"
#include "backends/kafka/sink.h"
#include "backends/kafka/source.h"
#include "backends/kafka/topic.h"
#include "connector/registry.h"

namespace relay::kafka {

void register_backend(Registry& registry);

namespace {

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_source_options(values, context.consumer_name());
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  options->client.pipeline = context.pipeline;
  EventRules rules;
  rules.id_scope = context.id_scope();
  rules.max_record_bytes = context.options.max_record_bytes;
  return std::make_unique<KafkaSource>(std::move(*options), std::move(rules), std::move(*mapping));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"librdkafka", rd_kafka_version_str()});
  registry.add(
      SourceType{.name = "kafka", .aliases = {}, .options = source_fields(), .make = &make_source});
  registry.add(SinkType{.name = "kafka",
                        .aliases = {},
                        .options = sink_fields(),
                        .subject_option = "topic",
                        .escape = &escape_topic,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_sink_options(values);
                          if (!options) return fail(options.error());
                          options->client.pipeline = context.pipeline;
                          options->ordered = context.ordered;
                          return std::make_unique<KafkaSink>(std::move(*options));
                        },
                        .default_subject = nullptr,
                        .cloudevents = {"ce_", false, "content-type"},
                        .tombstones = true});
}

}  // namespace relay::kafka
