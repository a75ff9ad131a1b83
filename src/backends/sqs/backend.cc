#include <memory>

#include "backends/sqs/options.h"
#include "backends/sqs/sink.h"
#include "backends/sqs/source.h"
#include "connector/registry.h"
#include "http/version.h"

namespace relay::sqs {

void register_backend(Registry& registry);

namespace {

Result<std::unique_ptr<Sink>> make_sink(const config::Values& values,
                                        const BackendContext& context) {
  auto options = parse_sink_options(values);
  if (!options) return fail(options.error());
  options->queue.pipeline = context.pipeline;
  options->ordered = context.ordered;
  return std::make_unique<SqsSink>(std::move(*options));
}

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_source_options(values);
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  options->queue.pipeline = context.pipeline;
  options->events = {context.id_scope(), context.options.max_record_bytes};
  return std::make_unique<SqsSource>(std::move(*options), std::move(*mapping));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"libcurl", http::library_version()});
  registry.add(
      SourceType{.name = "sqs", .aliases = {}, .options = source_fields(), .make = &make_source});
  registry.add(SinkType{.name = "sqs",
                        .aliases = {},
                        .options = sink_fields(),
                        .subject_option = "message_group_id",
                        .escape = nullptr,
                        .make = &make_sink,
                        .default_subject = [](const config::Values&) -> Result<std::string> {
                          return std::string();
                        }});
}

}  // namespace relay::sqs
