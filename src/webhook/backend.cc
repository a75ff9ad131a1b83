#include <memory>

#include "http/url.h"
#include "pipeline/registry.h"
#include "webhook/options.h"
#include "webhook/sink.h"

namespace relay::webhook {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "webhook",
                        .aliases = {"http"},
                        .options = sink_fields(),
                        .subject_option = {},
                        .escape = &http::append_percent_encoded,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_options(values);
                          if (!options) return fail(options.error());
                          options->pipeline = context.pipeline;
                          options->ordered = context.ordered;
                          return std::make_unique<WebhookSink>(std::move(*options));
                        },
                        .default_subject = &default_subject,
                        .cloudevents = {"ce-", true, {}}});
}

}  // namespace relay::webhook
