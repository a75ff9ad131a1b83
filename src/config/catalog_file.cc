#include "config/catalog_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "config/file_entry.h"
#include "config/pipeline_reader.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::config {
namespace {

constexpr std::string_view kConfig = "config";
constexpr int kDeepest = 64;

// So that a reference is read as this text. `references` receives its place.
Node literal(Node node, std::set<std::string>& references) {
  if (const std::string* text = node.text()) {
    std::string out;
    for (std::size_t i = 0; i < text->size(); ++i) {
      const bool begins = text->compare(i, 2, "${") == 0 && (i == 0 || (*text)[i - 1] != '$');
      if (begins) out += '$';
      out += (*text)[i];
    }
    if (out.size() == text->size()) return node;
    references.insert(node.place());
    return Node(std::move(out), node.place());
  }
  if (Node::Array* array = node.array()) {
    for (Node& element : *array) element = literal(std::move(element), references);
  } else if (Node::Object* object = node.object()) {
    for (auto& [key, value] : *object) value = literal(std::move(value), references);
  }
  return node;
}

bool is_deeper(const Node& node, int levels) {
  const auto goes_on = [&](const Node& inside) { return is_deeper(inside, levels - 1); };
  if (levels < 0) return true;
  if (const Node::Array* array = node.array()) return std::ranges::any_of(*array, goes_on);
  if (const Node::Object* object = node.object()) {
    return std::ranges::any_of(*object, [&](const auto& one) { return goes_on(one.second); });
  }
  return false;
}

// A secret that `export --mask-secrets` took out.
bool is_masked(std::string_view text) {
  return text == secrets::kMask || text.find(fmt::format("{}@", secrets::kMask)) != text.npos;
}

void refuse_texts(const Node& node, std::vector<Error>& problems) {
  const auto no_zero = [&](std::string_view text) {
    if (text.find('\0') == text.npos) return;
    problems.push_back(problem(node.place(), "not_allowed",
                               "the character U+0000 cannot be stored in PostgreSQL",
                               "Leave it out."));
  };
  if (const std::string* text = node.text()) {
    no_zero(*text);
    if (is_masked(*text)) {
      problems.push_back(problem(node.place(), "masked_secret", "the secret was masked",
                                 "Write the secret here, or a reference such as ${env:NAME}."));
    }
  } else if (const Node::Array* array = node.array()) {
    for (const Node& element : *array) refuse_texts(element, problems);
  } else if (const Node::Object* object = node.object()) {
    for (const auto& [key, value] : *object) {
      no_zero(key);
      refuse_texts(value, problems);
    }
  }
}

// The options of an end against its table.
void check_end(const EndType* type, const Node::Object& options, std::string_view place,
               std::vector<Error>& problems) {
  if (!type) return;  // the database names the types that there are
  Checked checked = check(options, type->options, place);
  std::move(checked.problems.begin(), checked.problems.end(), std::back_inserter(problems));
}

// The configuration of an entry, where it is good as far as can be seen.
class Entry {
 public:
  Entry(const Catalogue& catalogue, const Node& node) : catalogue_(catalogue), node_(node) {
    config_.place = node.place();
  }

  CatalogEntry read(std::vector<Error>& problems) {
    read_entry(node_, config_);
    Node written = configuration();
    refuse_texts(written, config_.problems);
    CatalogEntry entry{config_.name,    config_.direction, {},
                       config_.enabled, written.to_json(), config_.place};
    if (!json_.empty()) entry.json = std::move(json_);
    if (config_.problems.empty()) check_options(std::move(written));
    // The direction of the entry, or else the one that follows from its ends.
    entry.implied_direction = config_.direction;
    for (Error& error : config_.problems) {
      if (!is_of_reference(error)) problems.push_back(std::move(error));
    }
    return entry;
  }

 private:
  Node configuration() {
    Node::Object rest;
    for (const auto& [key, value] : *node_.object()) {
      if (!is_entry_key(key)) rest.emplace_back(key, value);
    }
    const Node* whole = find_member(rest, kConfig);
    if (!whole) return Node(std::move(rest), node_.place());
    if (rest.size() == 1 && whole->text()) return parsed(*whole);
    config_.problems.push_back(
        problem(whole->place(), "conflict", "config is the whole configuration as a JSON text",
                "Write config = '{...}' and no other option, or the options without config."));
    return Node(Node::Object(), node_.place());
  }

  Node parsed(const Node& whole) {
    auto node = parse_json(*whole.text(), whole.place());
    const bool deep = node && is_deeper(*node, kDeepest);
    if (node && node->object() && !deep) {
      json_ = *whole.text();
      return std::move(*node);
    }
    config_.problems.push_back(
        !node  ? node.error()
        : deep ? problem(whole.place(), "not_allowed",
                         fmt::format("values stand at most {} deep in others", kDeepest))
               : problem(whole.place(), "wrong_type", "config must be a JSON object"));
    return Node(Node::Object(), node_.place());
  }

  void check_options(Node written) {
    const Node literally = literal(std::move(written), references_);
    read_pipeline(catalogue_, config_, literally, Written::in_file_for_catalog);
    check_end(catalogue_.source(config_.source_type), config_.source, config_.place + ", source",
              config_.problems);
    check_end(catalogue_.sink(config_.sink_type), config_.sink, config_.place + ", sink",
              config_.problems);
  }

  // Its value is not known here.
  bool is_of_reference(const Error& error) const {
    return std::ranges::any_of(references_, [&](const std::string& place) {
      return error.message.starts_with(place + ": ");
    });
  }

  const Catalogue& catalogue_;
  const Node& node_;
  PipelineConfig config_;
  std::string json_;
  std::set<std::string> references_;
};

void read_entries(const Catalogue& catalogue, const Node& node, CatalogFile& file) {
  if (!node.array()) {
    file.problems.push_back(no_list_of_tables(node.place()));
    return;
  }
  for (const Node& element : *node.array()) {
    if (!element.object()) {
      file.problems.push_back(no_list_of_tables(element.place()));
      continue;
    }
    CatalogEntry entry = Entry(catalogue, element).read(file.problems);
    const auto same = std::ranges::find(file.entries, entry.name, &CatalogEntry::name);
    if (same != file.entries.end()) {
      file.problems.push_back(same_name(entry.name, entry.place, same->place));
    }
    file.entries.push_back(std::move(entry));
  }
}

}  // namespace

Result<CatalogFile> parse_catalog_file(const Catalogue& catalogue, std::string_view text,
                                       std::string_view file) {
  const auto root = parse_toml(text, file);
  if (!root) return fail(root.error());
  CatalogFile parsed;
  for (const auto& [key, node] : *root->object()) {
    if (key == "pipeline") {
      read_entries(catalogue, node, parsed);
    } else if (key == "global") {
      parsed.problems.push_back(
          problem(node.place(), "not_allowed",
                  "[global] is for the file of `run --config`, whose pipelines are not in the "
                  "database",
                  "Leave [global] out of this file; its pipelines must not be in both."));
    } else {
      parsed.problems.push_back(unknown_section(key, node));
    }
  }
  return parsed;
}

}  // namespace relay::config
