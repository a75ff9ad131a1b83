#include <memory>

#include "backends/webhook/options.h"
#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_source.h"
#include "backends/webhook/sink.h"
#include "connector/registry.h"
#include "core/percent.h"
#include "http/url.h"
#include "http/version.h"

namespace relay::webhook {

void register_backend(Registry& registry);

namespace {

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_receiver_options(values, context.options.max_record_bytes);
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  options->pipeline = context.pipeline;
  return std::make_unique<ReceiverSource>(std::move(*options), context.id_scope(),
                                          std::move(*mapping));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"libcurl", http::library_version()});
  registry.add(SourceType{
      .name = "webhook", .aliases = {"http"}, .options = receiver_fields(), .make = &make_source});
  registry.add(SinkType{.name = "webhook",
                        .aliases = {"http"},
                        .options = sink_fields(),
                        .subject_option = {},
                        .escape = &append_percent_encoded,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_options(values);
                          if (!options) return fail(options.error());
                          options->pipeline = context.pipeline;
                          options->ordered = context.ordered;
                          options->origins =
                              fixed_origins(values, context.options.subject_template);
                          return std::make_unique<WebhookSink>(std::move(*options));
                        },
                        .default_subject = &default_subject,
                        .cloudevents = {"ce-", true, {}}});
}

}  // namespace relay::webhook
