#include <memory>

#include "backends/pg_inbox/options.h"
#include "backends/pg_inbox/sink.h"
#include "connector/registry.h"

namespace relay::pg_inbox {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "pg-inbox",
                        .aliases = {"inbox", "pg_inbox"},
                        .options = sink_fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_options(values);
                          if (!options) return fail(options.error());
                          options->pipeline = context.pipeline;
                          options->host_credentials = !context.from_catalog;
                          options->looks_only = context.looks_only;
                          return std::make_unique<InboxSink>(std::move(*options), context.database);
                        },
                        .default_subject = nullptr});
}

}  // namespace relay::pg_inbox
