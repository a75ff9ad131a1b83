#include "config/file_entry.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "config/option_table.h"
#include "core/characters.h"
#include "core/text.h"

namespace relay::config {
namespace {

// The rules of the catalog.
std::string_view wrong_with_name(std::string_view name) {
  if (name.empty()) return "a pipeline's name must not be empty";
  if (first_characters(name, 200) != name)
    return "a pipeline's name may have at most 200 characters";
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
    {{.name = "direction", .type = FieldType::choice, .choices = "forward,reverse,bridge"},
     fills<&PipelineConfig::direction>},
};
constexpr auto kFields = fields_of(kOptions);

void read_others(const Node& entry, PipelineConfig& config) {
  Node::Object given;
  for (const Field& field : kFields) {
    if (const Node* node = entry.find(field.name)) given.emplace_back(field.name, *node);
  }
  Checked checked = check(given, kFields, config.place);
  std::move(checked.problems.begin(), checked.problems.end(), std::back_inserter(config.problems));
  const auto done = fill(config, kOptions, checked.values);
  if (!done) config.problems.push_back(done.error());
}

}  // namespace

void read_entry(const Node& entry, PipelineConfig& config) {
  read_name(entry, config);
  read_others(entry, config);
}

bool is_entry_key(std::string_view key) {
  return key == "name" || find_field(kFields, key) != nullptr;
}

Error same_name(std::string_view name, std::string_view place, std::string_view other_place) {
  return problem(place, "conflict",
                 fmt::format("there is another pipeline {} at {}", json_string(name), other_place),
                 "Give each pipeline its own name.");
}

Error unknown_section(const std::string& key, const Node& node) {
  constexpr std::array<std::string_view, 2> kSections = {"global", "pipeline"};
  const std::string_view near = nearest(key, kSections);
  return problem(
      node.place(), "unknown_option",
      fmt::format("there is no {} in this file", json_string(first_characters(key, 64))),
      fmt::format("{}Known are [global] and [[pipeline]].",
                  near.empty() ? std::string() : fmt::format("Did you mean \"{}\"? ", near)));
}

Error no_list_of_tables(std::string_view place) {
  return problem(place, "wrong_type", "pipeline must be a list of tables",
                 "Begin each pipeline with [[pipeline]].");
}

}  // namespace relay::config
