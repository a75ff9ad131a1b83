#include "config/pipeline_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "config/file_entry.h"
#include "config/flat_form.h"
#include "config/pipeline_options.h"
#include "config/pipeline_reader.h"
#include "core/characters.h"
#include "core/digest.h"
#include "core/text.h"

namespace relay::config {
namespace {

// Sorts the keys of one pipeline, flat, nested or mixed, into source, sink and pipeline options.
class Sorter {
 public:
  Sorter(const Catalogue& catalogue, PipelineConfig& config, Written written)
      : catalogue_(catalogue), config_(config), written_(written) {}

  void sort(const Node::Object& object) {
    take_end(object, "source", config_.source, ends_.source);
    take_end(object, "sink", config_.sink, ends_.sink);
    imply_types(object);
    for (const auto& [key, node] : object) take_key(key, node);
    lift();
    config_.source_type = ends_.source.name();
    config_.sink_type = ends_.sink.name();
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
                End& end) {
    const Node* nested = find_member(object, side);
    if (nested && nested->object()) {
      for (const auto& [key, node] : *nested->object()) {
        if (key == "type") {
          take_type(node, side, end);
        } else {
          options.emplace_back(key, node);
        }
      }
    } else if (nested && !nested->is_null()) {
      report(nested->place(), "wrong_type", fmt::format("{} must be an object", side),
             fmt::format("Write it as {{\"{}\": {{\"type\": ..., ...}}}}.", side));
    }
    if (const Node* flat = find_member(object, fmt::format("{}_type", side))) {
      take_type(*flat, side, end);
    }
  }

  const EndType* find_type(std::string_view side, std::string_view name) const {
    return side == "source" ? catalogue_.source(name) : catalogue_.sink(name);
  }

  void take_type(const Node& node, std::string_view side, End& end) {
    if (node.is_null()) return;
    if (!node.text() || node.text()->empty()) {
      report(node.place(), "wrong_type", "the type must be the name of a source or sink");
      return;
    }
    End found{*node.text(), find_type(side, *node.text())};
    if (end.written.empty()) {
      end = std::move(found);
    } else if (end.name() != found.name()) {
      report(node.place(), "conflict",
             fmt::format("type says {} here and {} elsewhere", json_string(found.written),
                         json_string(end.written)),
             "Give it once.");
    }
  }

  // The type of an end may be left out if the pipeline names an outbox or an inbox.
  void imply_types(const Node::Object& object) {
    const auto names = [&](const EndType* type) {
      return type && std::ranges::any_of(type->options, [&](const Field& field) {
               return field.plain && find_member(object, field.name);
             });
    };
    const auto imply = [&](std::string_view side, End& end, std::string_view type, bool always) {
      if (end.written.empty()) {
        const EndType* found = find_type(side, type);
        if (always || names(found)) end = {std::string(type), found};
      }
      if (end.written.empty()) report_no_type(side);
    };
    imply("source", ends_.source, kImpliedSource, config_.direction == "forward");
    imply("sink", ends_.sink, kImpliedSink, config_.direction == "reverse");
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
    return written_ != Written::in_catalog && is_entry_key(key);
  }

  void take_key(const std::string& key, const Node& node) {
    if (is_structure(key)) return;
    if (is_pipeline_option(key)) {
      merge_member(options_, key, node, config_.problems);
      return;
    }
    if (is_retention_option(key)) {
      if (written_ != Written::in_file) return;
      report(node.place(), "not_allowed",
             fmt::format("{} is for pipelines that are configured in SQL", key),
             "Give it to pgtrickle.enable_outbox(), or configure the pipeline in SQL.");
      return;
    }
    const Owner owner = owner_of(key, ends_);
    switch (owner.side) {
      case Owner::Side::source:
        take_option(ends_.source, config_.source, key, owner.option, node);
        return;
      case Owner::Side::sink:
        take_option(ends_.sink, config_.sink, key, owner.option, node);
        return;
      case Owner::Side::both:
        report(node.place(), "ambiguous",
               fmt::format("{} could be an option of the source and of the sink", key),
               fmt::format("Use the nested form: {{\"source\": {{\"type\": \"{}\", ...}}, "
                           "\"sink\": {{\"type\": \"{}\", \"{}\": ...}}}}.",
                           ends_.source.written, ends_.sink.written, owner.option));
        return;
      case Owner::Side::none:
        report_unknown(key, node);
    }
  }

  // An option of an end, under its key of the flat form: the error of one that is none says that
  // key.
  void take_option(const End& end, Node::Object& options, std::string_view key,
                   const std::string& option, const Node& node) {
    const Field* const of_pipeline = find_field(pipeline_fields(), option);
    if (find_by_any_name(end.type->options, option) ||
        (of_pipeline && is_lifted(*of_pipeline, end))) {
      merge_member(options, option, node, config_.problems);
      return;
    }
    const std::string_view prefix = key.substr(0, key.size() - option.size());
    config_.problems.push_back(unknown_option(option, node, end.type->options, prefix));
  }

  void report_unknown(const std::string& key, const Node& node) {
    // While a type is not known, it is unknown which end the key belongs to.
    if (!ends_.source.type || !ends_.sink.type) return;
    std::vector<std::string_view> known = plain_names(ends_);
    for (const std::string_view name : {"source", "sink", "source_type", "sink_type", "retry"}) {
      known.push_back(name);
    }
    if (written_ != Written::in_catalog) {
      known.insert(known.end(), {"name", "enabled", "direction"});
    }
    for (const Field& field : pipeline_fields()) known.push_back(field.name);
    if (written_ != Written::in_file) {
      for (const Field& field : retention_fields()) known.push_back(field.name);
    }
    report(node.place(), "unknown_option",
           fmt::format("there is no option {} of pipelines, nor of {} or {}",
                       json_string(first_characters(key, 64)), ends_.source.written,
                       ends_.sink.written),
           remedy_of_unknown(key, known));
  }

  // An option of an end by its bare name, else the nearest name, else all.
  std::string remedy_of_unknown(std::string_view key,
                                const std::vector<std::string_view>& known) const {
    const std::vector<std::string> flat = flat_names(ends_);
    for (const End* end : {&ends_.sink, &ends_.source}) {
      const std::string prefixed = flat_prefix(end->written) + std::string(key);
      if (std::ranges::find(flat, prefixed) == flat.end()) continue;
      return fmt::format("It is an option of {}: write it \"{}\", or put it inside \"{}\".",
                         end->written, prefixed, end == &ends_.sink ? "sink" : "source");
    }
    std::vector<std::string_view> candidates = known;
    candidates.insert(candidates.end(), flat.begin(), flat.end());
    if (const std::string_view near = nearest(key, candidates); !near.empty()) {
      return fmt::format("Did you mean \"{}\"?", near);
    }
    return fmt::format(
        "An option of {0} is written \"{1}...\", or inside \"sink\"; one of the pipeline is one of "
        "{2}.",
        ends_.sink.written, flat_prefix(ends_.sink.written), fmt::join(known, ", "));
  }

  // Options of the pipeline that were written into an end. One that the end has too stays there as
  // well.
  void lift() {
    for (const Field& field : pipeline_fields()) {
      if (is_lifted(field, ends_.sink)) lift(config_.sink, ends_.sink, field.name);
      if (is_lifted(field, ends_.source)) lift(config_.source, ends_.source, field.name);
    }
  }

  bool is_lifted(const Field& field, const End& end) const {
    if (&end == &ends_.sink) return field.also_in == AlsoIn::sink;
    return field.also_in == AlsoIn::outbox_source && end.type && end.type->reads_outbox;
  }

  void lift(Node::Object& from, const End& end, std::string_view key) {
    const auto found =
        std::ranges::find_if(from, [&](const auto& member) { return member.first == key; });
    if (found == from.end()) return;
    merge_member(options_, key, found->second, config_.problems);
    const bool has_it = end.type && find_field(end.type->options, key);
    if (!has_it) from.erase(found);
  }

  const Catalogue& catalogue_;
  PipelineConfig& config_;
  Written written_;
  Ends ends_;
  Node::Object options_;
};

std::string direction_of(const PipelineConfig& config) {
  if (config.source_type == kImpliedSource) return "forward";
  return config.sink_type == kImpliedSink ? "reverse" : "bridge";
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

void read_pipeline(const Catalogue& catalogue, PipelineConfig& config, const Node& node,
                   Written written) {
  const ReferenceRules rules{written == Written::in_file,
                             config.access ? &*config.access : nullptr};
  const Node resolved = resolve_references(node, rules, config.problems, config.references);
  Sorter sorter(catalogue, config, written);
  sorter.sort(*resolved.object());
  if (const Node* headers = find_member(sorter.options(), "headers");
      headers && headers->object()) {
    config.headers = *headers->object();
  }
  if (config.direction.empty()) config.direction = direction_of(config);
  config.fingerprint = fingerprint_of(config, sorter.options());
}

PipelineConfig pipeline_from_json(const Catalogue& catalogue, std::string_view name,
                                  std::string_view direction, bool enabled, std::string_view json,
                                  const HostAccess& access) {
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
    read_pipeline(catalogue, config, *node, Written::in_catalog);
    return config;
  }
  config.fingerprint = fingerprint_of(config, {});
  return config;
}

}  // namespace relay::config
