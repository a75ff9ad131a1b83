#include <fmt/core.h>

#include <algorithm>

#include "config/file_entry.h"
#include "config/pipeline_config.h"
#include "config/pipeline_reader.h"
#include "config/settings_fields.h"

namespace relay::config {
namespace {

PipelineConfig read_one(const Catalogue& catalogue, const Node& node) {
  PipelineConfig config;
  config.place = node.place();
  std::vector<Error> told_by_read_pipeline;
  const Node resolved = resolve_references(node, true, told_by_read_pipeline);
  read_entry(resolved, config);
  read_pipeline(catalogue, config, node, Written::in_file);
  return config;
}

// Two pipelines have one name: which of them is meant is unknown, so neither may run.
void add(std::vector<PipelineConfig>& pipelines, PipelineConfig config) {
  const auto same =
      std::find_if(pipelines.begin(), pipelines.end(),
                   [&](const PipelineConfig& other) { return other.name == config.name; });
  if (same == pipelines.end()) {
    pipelines.push_back(std::move(config));
    return;
  }
  same->problems.push_back(same_name(config.name, config.place, same->place));
}

void read_pipelines(const Catalogue& catalogue, const Node& node, FileConfig& config) {
  const auto refuse = [&](std::string_view place) {
    config.problems.push_back(no_list_of_tables(place));
  };
  if (!node.array()) return refuse(node.place());
  for (const Node& element : *node.array()) {
    if (element.object()) {
      add(config.pipelines, read_one(catalogue, element));
    } else {
      refuse(element.place());
    }
  }
}

// Leaves out what is invalid, so that it is reported once only.
void read_global(const Node& node, FileConfig& config) {
  if (!node.object()) {
    config.problems.push_back(
        problem(node.place(), "wrong_type", "global must be a table", "Begin it with [global]."));
    return;
  }
  const Node resolved = resolve_references(node, true, config.problems);
  const FieldTable fields = file_settings_fields();
  for (const auto& [key, value] : *resolved.object()) {
    auto found = check({{key, value}}, fields, node.place()).problems;
    if (found.empty()) config.global.emplace_back(key, value);
    for (Error& error : found) config.problems.push_back(error.in_context("[global]"));
  }
  for (Error& error : check(config.global, fields, node.place()).problems) {
    config.problems.push_back(error.in_context("[global]"));
  }
}

}  // namespace

Error combined(std::vector<Error> problems) {
  Error all = std::move(problems.front());
  for (std::size_t i = 1; i < problems.size(); ++i) {
    all.message += fmt::format("; {}", problems[i].message);
    const std::string& remedy = problems[i].remedy;
    if (remedy.empty() || all.remedy.find(remedy) != std::string::npos) continue;
    all.remedy += all.remedy.empty() ? remedy : fmt::format("; {}", remedy);
  }
  return all;
}

Result<FileConfig> parse_config_file(const Catalogue& catalogue, std::string_view text,
                                     std::string_view file) {
  const auto root = parse_toml(text, file);
  if (!root) return fail(root.error());
  FileConfig config;
  for (const auto& [key, node] : *root->object()) {
    if (key == "global") {
      read_global(node, config);
    } else if (key == "pipeline") {
      read_pipelines(catalogue, node, config);
    } else {
      config.problems.push_back(unknown_section(key, node));
    }
  }
  return config;
}

}  // namespace relay::config
