#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "config/tree.h"
#include "core/secrets.h"

namespace relay::config {
namespace {

bool is_plain_name(std::string_view text) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  if (text.empty() || !is_letter(text[0])) return false;
  for (const char c : text) {
    if (!is_letter(c) && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}

std::optional<std::string> environment(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  if (!value) return std::nullopt;
  return value;
}

// Replaces the references of one text. The value of a reference is not searched for references: the
// author of the text did not write it.
class Resolver {
 public:
  Resolver(const ReferenceRules& rules, std::vector<Error>& problems,
           std::vector<ResolvedReference>& found)
      : rules_(rules), problems_(problems), found_(found) {}

  Node resolve(const Node& node) {
    Node result = node;
    if (const std::string* text = node.text()) return resolve_text(*text, node);
    if (Node::Array* array = result.array()) {
      for (Node& element : *array) element = resolve(element);
    } else if (Node::Object* object = result.object()) {
      for (auto& [key, value] : *object) value = resolve(value);
    }
    return result;
  }

 private:
  Node resolve_text(const std::string& text, const Node& node) {
    std::string out;
    bool replaced = false;
    bool failed = false;
    std::string_view rest = text;
    while (!rest.empty()) {
      const std::size_t at = rest.find("${");
      if (at == std::string_view::npos) break;
      if (at > 0 && rest[at - 1] == '$') {  // $${ is ${
        out.append(rest.substr(0, at));
        out += '{';
        rest.remove_prefix(at + 2);
        continue;
      }
      out.append(rest.substr(0, at));
      const std::size_t end = rest.find('}', at);
      if (end == std::string_view::npos) {
        report(node, "a reference that begins with ${ has no }", kForms);
        failed = true;
        rest = {};
        break;
      }
      const auto value = look_up(rest.substr(at + 2, end - at - 2), node);
      if (value) out.append(*value);
      failed = failed || !value;
      replaced = true;
      rest.remove_prefix(end + 1);
    }
    out.append(rest);
    Node result;
    if (!failed) result = Node(std::move(out), node.place());
    result.set_place(node.place());
    result.set_origin(replaced ? Node::Origin::reference : node.origin());
    return result;
  }

  std::optional<std::string> look_up(std::string_view reference, const Node& node) {
    auto value = value_of(reference, node);
    if (!value) return value;
    const std::string name(shown(reference));
    secrets::remember(*value, fmt::format("${{{}}}", name));
    found_.push_back({name, *value});
    return value;
  }

  std::optional<std::string> value_of(std::string_view reference, const Node& node) {
    if (reference.starts_with("env:")) {
      if (!allows_variable(reference)) {
        report_not_allowed(reference, reference, node);
        return std::nullopt;
      }
      auto value = environment(reference.substr(4));
      if (!value) report_unset(reference, reference.substr(4), node);
      return value;
    }
    if (reference.starts_with("file:")) return read_file(reference.substr(5), node);
    const std::size_t dash = reference.find(":-");
    const std::string_view name = reference.substr(0, dash);
    if (!is_plain_name(name)) {
      report(node, fmt::format("${{{}}} is not a reference", shown(reference)), kForms);
      return std::nullopt;
    }
    if (!rules_.plain_names) {
      report(node,
             fmt::format("${{{}}} is not a reference here; plain names work in files only", name),
             fmt::format("Write ${{env:{}}}, or $${{ for ${{ itself.", name));
      return std::nullopt;
    }
    auto value = environment(name);
    if (dash != std::string_view::npos && (!value || value->empty())) {
      return std::string(reference.substr(dash + 2));
    }
    if (!value) report_unset(reference, name, node);
    return value;
  }

  /// Checked before the look-up: an error must not tell whether a variable is set.
  bool allows_variable(std::string_view reference) const {
    return !rules_.access ||
           std::any_of(rules_.access->secrets.begin(), rules_.access->secrets.end(),
                       [&](const std::string& p) { return matches_pattern(p, reference); });
  }

  std::optional<std::string> read_file(std::string_view path, const Node& node) {
    if (!path.starts_with('/')) {
      report(node, fmt::format("${{file:{}}}: the path must begin with /", path),
             "Give the path of a file that the relay may read.");
      return std::nullopt;
    }
    auto content = rules_.access ? read_allowed_file(secret_files(*rules_.access), path)
                                 : read_secret_file(path);
    if (content) return std::move(*content);
    if (content.error().code == "not_allowed") {
      report_not_allowed(fmt::format("file:{}", path), fmt::format("file:{}", normal_path(path)),
                         node);
    } else {
      report(node, fmt::format("${{file:{}}}: {}", path, content.error().message),
             content.error().remedy);
    }
    return std::nullopt;
  }

  // A default may be a secret: only the name is shown.
  static std::string_view shown(std::string_view reference) {
    if (reference.starts_with("env:") || reference.starts_with("file:")) return reference;
    return reference.substr(0, std::min(reference.find(":-"), std::size_t{60}));
  }

  void report_unset(std::string_view reference, std::string_view name, const Node& node) {
    report(node,
           fmt::format("${{{}}}: the environment variable {} is not set", shown(reference), name),
           fmt::format("Set {} in the environment of the relay and start it again.", name));
  }

  void report_not_allowed(std::string_view reference, std::string_view pattern, const Node& node) {
    problems_.push_back(problem(
        node.place(), "reference_not_allowed",
        fmt::format("${{{}}} is not allowed: the operator of the relay decides which references "
                    "pipelines in SQL may use",
                    shown(reference)),
        fmt::format("Start the relay with --allow-secret '{0}' (or a pattern such as '{1}'), set "
                    "PGTRICKLE_RELAY_ALLOW_SECRET, or allow_secret = [\"{0}\"] in [global].",
                    pattern, wider(pattern))));
  }

  // A pattern for the neighbours as well: env:NATS_* for env:NATS_TOKEN, file:/dir/* for a file.
  static std::string wider(std::string_view pattern) {
    const auto end = pattern.rfind(pattern.starts_with("env:") ? '_' : '/');
    return end == std::string_view::npos ? std::string("env:*")
                                         : std::string(pattern.substr(0, end + 1)) + "*";
  }

  void report(const Node& node, std::string_view what, std::string remedy) {
    problems_.push_back(problem(node.place(), "unresolved_reference", what, std::move(remedy)));
  }

  static constexpr const char* kForms =
      "References are ${env:NAME} and ${file:/path}, in files also ${NAME} and ${NAME:-default}; "
      "$${ stands for ${ itself.";

  const ReferenceRules& rules_;
  std::vector<Error>& problems_;
  std::vector<ResolvedReference>& found_;
};

}  // namespace

Node resolve_references(const Node& node, const ReferenceRules& rules, std::vector<Error>& problems,
                        std::vector<ResolvedReference>& found) {
  return Resolver(rules, problems, found).resolve(node);
}

Node resolve_references(const Node& node, bool plain_names, std::vector<Error>& problems) {
  std::vector<ResolvedReference> found;
  return resolve_references(node, {plain_names, nullptr}, problems, found);
}

Result<Node> resolve_references(const Node& node, bool plain_names) {
  std::vector<Error> problems;
  Node resolved = resolve_references(node, plain_names, problems);
  if (!problems.empty()) return fail(std::move(problems.front()));
  return resolved;
}

}  // namespace relay::config
