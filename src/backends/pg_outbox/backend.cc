#include <memory>

#include "backends/pg_outbox/options.h"
#include "backends/pg_outbox/remote_outbox.h"
#include "backends/pg_outbox/table_source.h"
#include "connector/registry.h"

namespace relay::pg_outbox {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SourceType{.name = "pg-outbox",
                          .aliases = {"pg_outbox"},
                          .options = source_fields(),
                          .reads_outbox = true,
                          .make = [](const config::Values& values, const BackendContext& context)
                              -> Result<std::unique_ptr<Source>> {
                            auto options = parse_options(values);
                            if (!options) return fail(options.error());
                            options->host_credentials = !context.from_catalog;
                            if (options->outbox.empty()) {
                              return std::make_unique<TableSource>(std::move(*options), context);
                            }
                            return std::make_unique<RemoteOutbox>(std::move(*options), context);
                          }});
}

}  // namespace relay::pg_outbox
