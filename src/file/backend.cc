#include <memory>

#include "file/options.h"
#include "file/sink.h"
#include "pipeline/registry.h"

namespace relay::file {

void register_backend(Registry& registry);

void register_backend(Registry& registry) {
  const auto make = [](const config::Values& values,
                       const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
    auto options = parse_options(values);
    if (!options) return fail(options.error());
    options->pipeline = context.pipeline;
    return std::make_unique<FileSink>(std::move(*options));
  };
  registry.add(SinkType{.name = "stdout",
                        .aliases = {},
                        .options = stdout_fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = make,
                        .default_subject = nullptr});
  registry.add(SinkType{.name = "file",
                        .aliases = {},
                        .options = file_fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = make,
                        .default_subject = nullptr});
}

}  // namespace relay::file
