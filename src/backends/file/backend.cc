#include <zlib.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/file/file_source.h"
#include "backends/file/options.h"
#include "backends/file/sink.h"
#include "backends/file/source_options.h"
#include "backends/file/stdin_source.h"
#include "connector/registry.h"

namespace relay::file {

void register_backend(Registry& registry);

namespace {

/// Their prefixes stand for each other in the flat form.
std::vector<std::string> family() {
  return {"stdout", "file", "stdin"};
}

LineRules rules_of(const BackendContext& context, std::string path) {
  return {context.id_scope(), std::move(path), context.options.max_record_bytes};
}

Result<std::unique_ptr<Source>> make_file_source(const config::Values& values,
                                                 const BackendContext& context) {
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  auto options = parse_source_options(values, context.pipeline);
  if (!options) return fail(options.error());
  LineRules rules = rules_of(context, options->path);
  return std::make_unique<FileSource>(std::move(*options), std::move(rules), std::move(*mapping));
}

Result<std::unique_ptr<Source>> make_stdin_source(const config::Values& values,
                                                  const BackendContext& context) {
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  return std::make_unique<StdinSource>(rules_of(context, "stdin"), std::move(*mapping));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"zlib", zlibVersion()});
  registry.add(SourceType{.name = "file",
                          .aliases = {},
                          .related = family(),
                          .options = file_source_fields(),
                          .make = &make_file_source});
  registry.add(SourceType{.name = "stdin",
                          .aliases = {},
                          .related = family(),
                          .options = stdin_source_fields(),
                          .make = &make_stdin_source});
  const auto make = [](const config::Values& values,
                       const BackendContext& context) -> Result<std::unique_ptr<Sink>> {
    auto options = parse_options(values);
    if (!options) return fail(options.error());
    options->pipeline = context.pipeline;
    return std::make_unique<FileSink>(std::move(*options));
  };
  registry.add(SinkType{.name = "stdout",
                        .aliases = {},
                        .related = family(),
                        .options = stdout_fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = make,
                        .default_subject = nullptr});
  registry.add(SinkType{.name = "file",
                        .aliases = {},
                        .related = family(),
                        .options = file_fields(),
                        .subject_option = {},
                        .escape = nullptr,
                        .make = make,
                        .default_subject = nullptr});
}

}  // namespace relay::file
