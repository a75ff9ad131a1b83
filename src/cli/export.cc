#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "config/catalog_file.h"
#include "config/pipeline_config.h"
#include "config/redaction.h"
#include "coordinator/assembly.h"
#include "core/deadline.h"
#include "core/text.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{60};

constexpr std::string_view kPipelines =
    "select c.name, c.direction, c.enabled, c.config::text from pgtrickle.list_relay_configs() c "
    "order by c.name collate \"C\"";

struct Exported {
  std::string name;
  std::string direction;
  bool enabled = false;
  std::string json;
};

Result<std::vector<Exported>> read_catalog(const Context& context) {
  auto connection = connect(context);
  if (!connection) return fail(connection.error());
  const auto rows = (*connection)->query(kPipelines, {}, Deadline::after(kTimeout), {});
  if (!rows) return fail(rows.error());
  std::vector<Exported> pipelines;
  for (int row = 0; row < rows->size(); ++row) {
    pipelines.push_back({std::string(rows->text(row, 0)), std::string(rows->text(row, 1)),
                         rows->boolean(row, 2), std::string(rows->text(row, 3))});
  }
  return pipelines;
}

Error no_such_pipeline(const std::string& name, const std::vector<Exported>& pipelines) {
  std::vector<std::string_view> names;
  for (const Exported& pipeline : pipelines) names.push_back(pipeline.name);
  const std::string_view near = nearest(name, names);
  return misconfigured("no_pipeline", fmt::format("there is no pipeline {} in the database", name),
                       near.empty() ? "`pgtrickle-relay pipelines list` names those that there are"
                                    : fmt::format("did you mean \"{}\"?", near));
}

/// Those that were asked for, in the order of their names.
Result<std::vector<Exported>> chosen(std::vector<Exported> pipelines,
                                     const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (std::ranges::find(pipelines, name, &Exported::name) == pipelines.end()) {
      return fail(no_such_pipeline(name, pipelines));
    }
  }
  if (names.empty()) return pipelines;
  std::erase_if(pipelines, [&](const Exported& pipeline) {
    return std::ranges::find(names, pipeline.name) == names.end();
  });
  return pipelines;
}

/// Warns of secrets that are in the output as they are.
void warn(const Context& context, const Exported& pipeline, const config::PipelineConfig& config) {
  for (const Error& warning : coordinator::warnings_of(config, context.registry)) {
    fmt::print(stderr, "warning: {}\n  remedy: {}\n", warning.message, warning.remedy);
    fmt::print(stderr, "  the output has the secret of {}: --mask-secrets leaves it out\n",
               pipeline.name);
  }
}

void print(const Context& context, Exported pipeline, bool mask) {
  // Without a direction that is given, the one that the ends imply. It also lets the mask know
  // the secrets.
  const config::PipelineConfig config =
      config::pipeline_from_json(context.registry.catalogue(), pipeline.name, "", pipeline.enabled,
                                 pipeline.json, context.settings.access);
  const bool implied = config.direction == pipeline.direction;
  if (mask) {
    coordinator::problems_of(config, context.registry);
    pipeline.json = config::redacted_column("config", pipeline.json);
  } else {
    warn(context, pipeline, config);
  }
  fmt::print("\n{}", config::catalog_entry(pipeline.name, implied ? "" : pipeline.direction,
                                           pipeline.enabled, pipeline.json));
}

}  // namespace

int export_pipelines(const Context& context, const ExportArguments& arguments) {
  auto all = read_catalog(context);
  if (!all) return failed(all.error());
  auto pipelines = chosen(std::move(*all), arguments.names);
  if (!pipelines) return failed(pipelines.error());
  fmt::print("# Pipelines of a database, for `pgtrickle-relay apply -f FILE`.\n");
  for (Exported& pipeline : *pipelines) {
    print(context, std::move(pipeline), arguments.mask_secrets);
  }
  return kOk;
}

}  // namespace relay::cli
