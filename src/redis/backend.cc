#include <memory>

#include "pipeline/registry.h"
#include "redis/options.h"
#include "redis/sink.h"

namespace relay::redis {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "redis",
                        .aliases = {},
                        .options = sink_fields(),
                        .subject_option = "stream_key",
                        .escape = nullptr,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_sink_options(values);
                          if (!options) return fail(options.error());
                          options->connection.pipeline = context.pipeline;
                          options->ordered = context.ordered;
                          return std::make_unique<RedisSink>(std::move(*options));
                        },
                        .default_subject = nullptr,
                        .tombstones = true});
}

}  // namespace relay::redis
