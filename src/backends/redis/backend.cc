#include <fmt/core.h>
#include <hiredis/hiredis.h>

#include <memory>

#include "backends/redis/options.h"
#include "backends/redis/sink.h"
#include "backends/redis/source.h"
#include "connector/registry.h"
#include "core/host_name.h"

namespace relay::redis {

void register_backend(Registry& registry);

namespace {

Result<std::unique_ptr<Sink>> make_sink(const config::Values& values,
                                        const BackendContext& context) {
  auto options = parse_sink_options(values);
  if (!options) return fail(options.error());
  options->connection.pipeline = context.pipeline;
  options->ordered = context.ordered;
  return std::make_unique<RedisSink>(std::move(*options));
}

Result<std::unique_ptr<Source>> make_source(const config::Values& values,
                                            const BackendContext& context) {
  auto options = parse_source_options(values, context.consumer_name(), host_name());
  if (!options) return fail(options.error());
  auto mapping = FieldMapping::make(values);
  if (!mapping) return fail(mapping.error());
  options->connection.pipeline = context.pipeline;
  EventRules rules;
  rules.id_scope = context.id_scope();
  rules.payload_field = options->payload_field;
  rules.max_record_bytes = context.options.max_record_bytes;
  return std::make_unique<RedisSource>(std::move(*options), std::move(rules), std::move(*mapping));
}

}  // namespace

void register_backend(Registry& registry) {
  registry.uses({"hiredis", fmt::format("{}.{}.{}", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH)});
  registry.add(
      SourceType{.name = "redis", .aliases = {}, .options = source_fields(), .make = &make_source});
  registry.add(SinkType{.name = "redis",
                        .aliases = {},
                        .options = sink_fields(),
                        .subject_option = "stream_key",
                        .escape = nullptr,
                        .make = &make_sink,
                        .default_subject = nullptr,
                        .tombstones = true});
}

}  // namespace relay::redis
