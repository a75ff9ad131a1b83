#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "config/option_table.h"
#include "config/pipeline_config.h"
#include "config/pipeline_reader.h"
#include "config/settings_fields.h"
#include "core/text.h"

namespace relay::config {
namespace {

// The rules of the catalog.
std::string_view wrong_with_name(std::string_view name) {
  if (name.empty()) return "a pipeline's name must not be empty";
  if (name.size() > 200) return "a pipeline's name may have at most 200 characters";
  if (name.front() == ' ' || name.back() == ' ') return "a pipeline's name has blanks at an end";
  const bool control = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  return control ? "a pipeline's name has control characters" : std::string_view();
}

void read_name(const Node& node, PipelineConfig& config) {
  const Node* name = node.find("name");
  Error error;
  if (!name || name->is_null()) {
    error = problem(config.place, "missing_option", "the pipeline has no name",
                    "Give it one: name = \"...\".");
  } else if (!name->text()) {
    error = problem(name->place(), "wrong_type", "a pipeline's name must be a text",
                    "Put it into quotes.");
  } else if (const auto wrong = wrong_with_name(*name->text()); !wrong.empty()) {
    error = problem(name->place(), "not_allowed", wrong);
  } else {
    config.name = *name->text();
    return;
  }
  config.name = fmt::format("unnamed pipeline at {}", config.place);
  config.problems.push_back(std::move(error));
}

constexpr Option<PipelineConfig> kOptions[] = {
    {{.name = "enabled", .type = FieldType::boolean, .default_text = "true"},
     fills<&PipelineConfig::enabled>},
};
constexpr auto kFields = fields_of(kOptions);

void read_enabled(const Node& node, PipelineConfig& config) {
  const Node* enabled = node.find("enabled");
  if (!enabled || enabled->is_null()) return;
  Checked checked = check({{"enabled", *enabled}}, kFields, config.place);
  std::move(checked.problems.begin(), checked.problems.end(), std::back_inserter(config.problems));
  const auto done = fill(config, kOptions, checked.values);
  if (!done) config.problems.push_back(done.error());
}

PipelineConfig read_one(const Catalogue& catalogue, const Node& node) {
  PipelineConfig config;
  config.place = node.place();
  std::vector<Error> told_by_read_pipeline;
  const Node resolved = resolve_references(node, true, told_by_read_pipeline);
  read_name(resolved, config);
  read_enabled(resolved, config);
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
  same->problems.push_back(problem(
      config.place, "conflict",
      fmt::format("there is another pipeline {} at {}", json_string(config.name), same->place),
      "Give each pipeline its own name."));
}

void read_pipelines(const Catalogue& catalogue, const Node& node, FileConfig& config) {
  const auto refuse = [&](std::string_view place) {
    config.problems.push_back(problem(place, "wrong_type", "pipeline must be a list of tables",
                                      "Begin each pipeline with [[pipeline]]."));
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

Error unknown_section(const std::string& key, const Node& node) {
  constexpr std::array<std::string_view, 2> kSections = {"global", "pipeline"};
  const std::string_view near = nearest(key, kSections);
  return problem(
      node.place(), "unknown_option",
      fmt::format("there is no {} in this file", json_string(std::string_view(key).substr(0, 64))),
      fmt::format("{}Known are [global] and [[pipeline]].",
                  near.empty() ? std::string() : fmt::format("Did you mean \"{}\"? ", near)));
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
