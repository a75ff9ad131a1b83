#include <memory>

#include "pipeline/registry.h"
#include "rabbitmq/options.h"
#include "rabbitmq/sink.h"

namespace relay::rabbitmq {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "rabbitmq",
                        .aliases = {"amqp"},
                        .options = sink_fields(),
                        .subject_option = "routing_key",
                        .escape = nullptr,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_sink_options(values);
                          if (!options) return fail(options.error());
                          options->connection.pipeline = context.pipeline;
                          return std::make_unique<RabbitSink>(std::move(*options), context.ordered);
                        },
                        .default_subject = nullptr,
                        .cloudevents = {"cloudEvents:", false, {}}});
}

}  // namespace relay::rabbitmq
