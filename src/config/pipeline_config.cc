#include "config/pipeline_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "config/flat_form.h"
#include "config/pipeline_options.h"
#include "config/pipeline_reader.h"
#include "core/digest.h"
#include "core/text.h"

namespace relay::config {
namespace {

// Options for retention, which reads them in the database. The relay only accepts them.
constexpr std::array<std::string_view, 4> kCatalogKeys{"retention_hours", "retention_hold_hours",
                                                       "max_hold_hours", "max_hold_bytes"};

// Options of an end that any pipeline has: they may stand at either level.
constexpr std::array<std::string_view, 4> kSinkKeys{"subject_template", "key_template", "headers",
                                                    "max_in_flight"};

// Sorts the keys of one pipeline, flat, nested or mixed, into source, sink and pipeline options.
class Sorter {
 public:
  Sorter(PipelineConfig& config, Written written) : config_(config), written_(written) {}

  void sort(const Node::Object& object) {
    take_end(object, "source", config_.source, types_.source);
    take_end(object, "sink", config_.sink, types_.sink);
    imply_types(object);
    for (const auto& [key, node] : object) take_key(key, node);
    lift();
    config_.source_type = canonical_type(types_.source);
    config_.sink_type = canonical_type(types_.sink);
    config_.options = read_pipeline_options(options_, config_.place, config_.problems);
  }

  const Node::Object& options() const { return options_; }

 private:
  void report(std::string_view place, std::string_view code, std::string_view what,
              std::string remedy = {}) {
    config_.problems.push_back(problem(place, code, what, std::move(remedy)));
  }

  // The nested form of an end, and its type in either form.
  void take_end(const Node::Object& object, std::string_view side, Node::Object& options,
                std::string& type) {
    const Node* nested = find_member(object, side);
    if (nested && nested->object()) {
      for (const auto& [key, node] : *nested->object()) {
        if (key == "type") {
          take_type(node, type);
        } else {
          options.emplace_back(key, node);
        }
      }
    } else if (nested && !nested->is_null()) {
      report(nested->place(), "wrong_type", fmt::format("{} must be an object", side),
             fmt::format("Write it as {{\"{}\": {{\"type\": ..., ...}}}}.", side));
    }
    if (const Node* flat = find_member(object, fmt::format("{}_type", side))) {
      take_type(*flat, type);
    }
  }

  void take_type(const Node& node, std::string& type) {
    if (node.is_null()) return;
    if (!node.text() || node.text()->empty()) {
      report(node.place(), "wrong_type", "the type must be the name of a source or sink");
    } else if (type.empty()) {
      type = *node.text();
    } else if (canonical_type(type) != canonical_type(*node.text())) {
      report(node.place(), "conflict",
             fmt::format("type says {} here and {} elsewhere", json_string(*node.text()),
                         json_string(type)),
             "Give it once.");
    }
  }

  // The type of an end may be left out if the pipeline names an outbox or an inbox.
  void imply_types(const Node::Object& object) {
    const auto names = [&](std::string_view type, bool source) {
      const EndTypes only{source ? std::string(type) : "", source ? "" : std::string(type)};
      return std::any_of(object.begin(), object.end(), [&](const auto& member) {
        const auto plain = plain_names(only);
        return std::find(plain.begin(), plain.end(), member.first) != plain.end();
      });
    };
    if (types_.source.empty() && (config_.direction == "forward" || names("outbox", true))) {
      types_.source = "outbox";
    }
    if (types_.sink.empty() && (config_.direction == "reverse" || names("pg-inbox", false))) {
      types_.sink = "pg-inbox";
    }
    if (types_.source.empty()) report_no_type("source");
    if (types_.sink.empty()) report_no_type("sink");
  }

  void report_no_type(std::string_view side) {
    report(config_.place, "missing_option", fmt::format("the type of the {} is missing", side),
           written_ == Written::in_catalog
               ? fmt::format("Set \"{0}_type\", or \"type\" inside \"{0}\".", side)
               : fmt::format("Write {} = {{ type = ..., ... }}.", side));
  }

  bool is_structure(std::string_view key) const {
    static constexpr std::array<std::string_view, 4> kBoth{"source", "sink", "source_type",
                                                           "sink_type"};
    if (std::find(kBoth.begin(), kBoth.end(), key) != kBoth.end()) return true;
    return written_ == Written::in_file && (key == "name" || key == "enabled");
  }

  void take_key(const std::string& key, const Node& node) {
    if (is_structure(key)) return;
    if (is_pipeline_option(key)) {
      merge_member(options_, key, node, config_.problems);
      return;
    }
    if (std::find(kCatalogKeys.begin(), kCatalogKeys.end(), key) != kCatalogKeys.end()) {
      if (written_ == Written::in_catalog) return;
      report(node.place(), "not_allowed",
             fmt::format("{} is for pipelines that are configured in SQL", key),
             "Give it to pgtrickle.enable_outbox(), or configure the pipeline in SQL.");
      return;
    }
    const Owner owner = owner_of(key, types_);
    switch (owner.side) {
      case Owner::Side::source:
        merge_member(config_.source, owner.option, node, config_.problems);
        return;
      case Owner::Side::sink:
        merge_member(config_.sink, owner.option, node, config_.problems);
        return;
      case Owner::Side::both:
        report(node.place(), "ambiguous",
               fmt::format("{} could be an option of the source and of the sink", key),
               fmt::format("Use the nested form: {{\"source\": {{\"type\": \"{}\", ...}}, "
                           "\"sink\": {{\"type\": \"{}\", \"{}\": ...}}}}.",
                           types_.source, types_.sink, owner.option));
        return;
      case Owner::Side::none:
        report_unknown(key, node);
    }
  }

  void report_unknown(const std::string& key, const Node& node) {
    // While a type is missing, it is unknown which end the key belongs to.
    if (types_.source.empty() || types_.sink.empty()) return;
    std::vector<std::string_view> known = plain_names(types_);
    for (const std::string_view name : {"source", "sink", "source_type", "sink_type", "retry"}) {
      known.push_back(name);
    }
    if (written_ == Written::in_file) known.insert(known.end(), {"name", "enabled"});
    for (const Field& field : pipeline_fields()) known.push_back(field.name);
    const std::string_view near = nearest(key, known);
    report(node.place(), "unknown_option",
           fmt::format("there is no option {} of pipelines, nor of {} or {}",
                       json_string(key.substr(0, 64)), types_.source, types_.sink),
           near.empty()
               ? fmt::format("An option of {0} is written \"{1}_...\", or inside \"sink\"; one of "
                             "the pipeline is one of {2}.",
                             types_.sink, flat_prefix(types_.sink), fmt::join(known, ", "))
               : fmt::format("Did you mean \"{}\"?", near));
  }

  static std::string flat_prefix(std::string type) {
    std::replace(type.begin(), type.end(), '-', '_');
    return type;
  }

  // Options of the pipeline that were written into an end. `max_in_flight` stays there as well,
  // because the sink obeys it.
  void lift() {
    for (const std::string_view key : kSinkKeys) {
      lift(config_.sink, key, key == "max_in_flight");
    }
    const std::string source = canonical_type(types_.source);
    if (source == "outbox" || source == "pg-outbox") lift(config_.source, "start", false);
  }

  void lift(Node::Object& from, std::string_view key, bool keep) {
    const auto found = std::find_if(from.begin(), from.end(),
                                    [&](const auto& member) { return member.first == key; });
    if (found == from.end()) return;
    merge_member(options_, key, found->second, config_.problems);
    if (!keep) from.erase(found);
  }

  PipelineConfig& config_;
  Written written_;
  EndTypes types_;
  Node::Object options_;
};

std::string direction_of(const PipelineConfig& config) {
  if (config.source_type == "outbox") return "forward";
  return config.sink_type == "pg-inbox" ? "reverse" : "bridge";
}

std::string fingerprint_of(const PipelineConfig& config, const Node::Object& options) {
  Node::Array problems;
  for (const Error& error : config.problems) problems.emplace_back(error.message, "");
  return hex(bytes_of(sha256(Node(Node::Object{{"name", {config.name, ""}},
                                               {"direction", {config.direction, ""}},
                                               {"enabled", {config.enabled, ""}},
                                               {"source_type", {config.source_type, ""}},
                                               {"source", {config.source, ""}},
                                               {"sink_type", {config.sink_type, ""}},
                                               {"sink", {config.sink, ""}},
                                               {"options", {options, ""}},
                                               {"problems", {std::move(problems), ""}}},
                                  "")
                                 .to_json())));
}

}  // namespace

void read_pipeline(PipelineConfig& config, const Node& node, Written written) {
  const ReferenceRules rules{written == Written::in_file,
                             config.access ? &*config.access : nullptr};
  const Node resolved = resolve_references(node, rules, config.problems, config.references);
  Sorter sorter(config, written);
  sorter.sort(*resolved.object());
  if (const Node* headers = find_member(sorter.options(), "headers");
      headers && headers->object()) {
    config.headers = *headers->object();
  }
  if (config.direction.empty()) config.direction = direction_of(config);
  config.fingerprint = fingerprint_of(config, sorter.options());
}

PipelineConfig pipeline_from_json(std::string_view name, std::string_view direction, bool enabled,
                                  std::string_view json, const HostAccess& access) {
  PipelineConfig config;
  config.access = access;
  config.name = name;
  config.direction = direction;
  config.enabled = enabled;
  config.place = fmt::format("pipeline {}", name);
  const auto node = parse_json(json, config.place);
  if (!node) {
    config.problems.push_back(node.error());
  } else if (!node->object()) {
    config.problems.push_back(
        problem(config.place, "wrong_type", "the configuration must be a JSON object"));
  } else {
    read_pipeline(config, *node, Written::in_catalog);
    return config;
  }
  config.fingerprint = fingerprint_of(config, {});
  return config;
}

}  // namespace relay::config
