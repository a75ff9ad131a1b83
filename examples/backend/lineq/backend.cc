#include "lineq/backend.h"

#include <memory>
#include <utility>

#include "connector/field_mapping.h"
#include "connector/registry.h"
#include "lineq/options.h"
#include "lineq/sink.h"
#include "lineq/source.h"

namespace relay::lineq {

namespace {

Result<std::unique_ptr<Sink>> make_sink(const config::Values& values, const BackendContext&) {
  auto options = parse_sink_options(values);
  if (!options) return fail(options.error());
  return std::make_unique<LineqSink>(std::move(*options));
}

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_source_options(values);
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  LineqSource::Rules rules{context.id_scope(), context.options.max_record_bytes};
  return std::make_unique<LineqSource>(std::move(*options), std::move(rules), std::move(*mapping));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.add(SinkType{.name = "lineq",
                        .aliases = {},
                        .options = sink_fields(),
                        .subject_option = "queue",
                        .escape = nullptr,  // any text is the name of a queue
                        .make = &make_sink,
                        .default_subject = nullptr});
  registry.add(
      SourceType{.name = "lineq", .aliases = {}, .options = source_fields(), .make = &make_source});
}

}  // namespace relay::lineq
