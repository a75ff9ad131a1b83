#include <memory>

#include "nats/options.h"
#include "nats/sink.h"
#include "nats/subject.h"
#include "pipeline/registry.h"

namespace relay::nats {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "nats",
                        .aliases = {"jetstream"},
                        .options = sink_fields(),
                        .subject_option = {},
                        .escape = &escape_token,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_options(values);
                          if (!options) return fail(options.error());
                          options->pipeline = context.pipeline;
                          if (!context.ordered) options->key_order = KeyOrder::pipelined;
                          return std::make_unique<NatsSink>(std::move(*options));
                        },
                        .default_subject = &default_subject});
}

}  // namespace relay::nats
