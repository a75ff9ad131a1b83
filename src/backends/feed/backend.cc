#include <memory>

#include "backends/feed/options.h"
#include "backends/feed/sink.h"
#include "connector/registry.h"

namespace relay::feed {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "feed",
                        .aliases = {},
                        .options = sink_fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_options(values);
                          if (!options) return fail(options.error());
                          options->pipeline = context.pipeline;
                          return std::make_unique<FeedSink>(std::move(*options), context.database,
                                                            context.held);
                        },
                        .default_subject = nullptr,
                        .stops_at_failure = true});
}

}  // namespace relay::feed
