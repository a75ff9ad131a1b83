#include <fmt/core.h>

#include <cstdio>

#include "cli/commands.h"
#include "coordinator/assembly.h"
#include "core/deadline.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{15};
constexpr std::chrono::milliseconds kLookEvery{100};

/// The pipeline's configuration, from the database or the file.
Result<config::PipelineConfig> find_pipeline(const Context& context, const std::string& name) {
  for (const auto& pipeline : context.file_pipelines) {
    if (pipeline.name == name) return pipeline;
  }
  auto connection = connect(context);
  if (!connection) return fail(connection.error());
  const auto rows = (*connection)
                        ->query(
                            "select direction, enabled, config::text "
                            "from pgtrickle.relay_pipelines where name = $1",
                            {name}, Deadline::after(kTimeout), {});
  if (!rows) return fail(rows.error());
  if (rows->empty()) {
    return fail(ErrorClass::misconfigured, "no_pipeline",
                fmt::format("there is no pipeline {}", name),
                "`pgtrickle-relay pipelines list` names those that there are");
  }
  return config::pipeline_from_json(context.registry.catalogue(), name, rows->text(0, 0),
                                    rows->boolean(0, 1), rows->text(0, 2), context.settings.access);
}

void print(const Context& context, const Message& message) {
  if (context.json) {
    fmt::print(R"({{"id":{},"subject":{},"key":{},"op":{},"body":{}}})"
               "\n",
               json_string(message.id), json_string(secrets::masked(message.subject)),
               json_string(message.key), json_string(message.op), json_string(message.body));
  } else if (message.refused) {
    fmt::print("{}  refused: {}\n", message.id, secrets::masked(message.refused->message));
  } else {
    fmt::print("{}  {}\n", secrets::masked(message.subject), message.body);
  }
  std::fflush(stdout);
}

}  // namespace

int tail(const Context& context, const std::string& pipeline, std::optional<std::int64_t> from,
         std::int64_t count) {
  const auto config = find_pipeline(context, pipeline);
  if (!config) return failed(config.error());
  postgres::Connection::Options options;
  options.url = context.settings.postgres_url;
  options.application_name = "pgtrickle-relay tail";
  postgres::Pool pool(options, 1);
  auto watching = coordinator::assemble_tail(*config, context.registry, pool,
                                             from ? std::to_string(*from) : "latest");
  if (!watching) return failed(watching.error());
  if (const auto opened = watching->source->open({}); !opened) return failed(opened.error());
  std::int64_t printed = 0;
  while (count == 0 || printed < count) {
    auto batch = watching->source->read({}, Deadline::after(kLookEvery), {});
    if (!batch) return failed(batch.error());
    if (batch->empty()) {
      watching->wake->poke();  // no sweep announces new rows here
      continue;
    }
    const MessageBatch messages = watching->encoder->encode(std::move(*batch));
    for (const Message& message : messages.messages) {
      if (count > 0 && printed == count) break;
      print(context, message);
      ++printed;
    }
  }
  watching->source->close();
  return kOk;
}

}  // namespace relay::cli
