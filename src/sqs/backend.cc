#include <memory>

#include "pipeline/registry.h"
#include "sqs/options.h"
#include "sqs/sink.h"

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

}  // namespace

void register_backend(Registry& registry) {
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
