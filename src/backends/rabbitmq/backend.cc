#include <memory>

#include "backends/rabbitmq/client_library.h"
#include "backends/rabbitmq/options.h"
#include "backends/rabbitmq/sink.h"
#include "backends/rabbitmq/source.h"
#include "connector/registry.h"
#include "state/local_position.h"

namespace relay::rabbitmq {

void register_backend(Registry& registry);

namespace {

Result<std::unique_ptr<Sink>> make_sink(const config::Values& values,
                                        const BackendContext& context) {
  auto options = parse_sink_options(values);
  if (!options) return fail(options.error());
  options->connection.pipeline = context.pipeline;
  return std::make_unique<RabbitSink>(std::move(*options), context.ordered);
}

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_source_options(values);
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  options->connection.pipeline = context.pipeline;
  EventRules rules{context.id_scope(), context.options.max_record_bytes};
  return std::make_unique<RabbitSource>(
      std::move(*options), std::move(rules), std::move(*mapping),
      std::make_unique<state::LocalPosition>(context.database, context.group, context.pipeline,
                                             context.worker_id));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"rabbitmq-c", amqp_version()});
  registry.add(SourceType{
      .name = "rabbitmq", .aliases = {"amqp"}, .options = source_fields(), .make = &make_source});
  registry.add(SinkType{.name = "rabbitmq",
                        .aliases = {"amqp"},
                        .options = sink_fields(),
                        .subject_option = "routing_key",
                        .escape = nullptr,
                        .make = &make_sink,
                        .default_subject = nullptr,
                        .cloudevents = {"cloudEvents:", false, {}}});
}

}  // namespace relay::rabbitmq
