#include <memory>
#include <utility>

#include "backends/memory/options.h"
#include "backends/memory/sink.h"
#include "connector/registry.h"

namespace relay::memory {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "memory",
                        .aliases = {},
                        .options = fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = [](const config::Values& values,
                                   const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
                          auto options = parse_options(values);
                          if (!options) return fail(options.error());
                          options->pipeline = context.pipeline;
                          return std::make_unique<MemorySink>(std::move(*options));
                        },
                        .default_subject = nullptr});
}

}  // namespace relay::memory
