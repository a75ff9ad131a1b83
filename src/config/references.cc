#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <system_error>

#include "config/tree.h"

namespace relay::config {
namespace {

constexpr std::size_t kLargestFile = 1 << 20;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

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

// Replaces the references of one text. What a reference stands for is not searched for others.
class Resolver {
 public:
  Resolver(bool plain_names, std::vector<Error>& problems)
      : plain_names_(plain_names), problems_(problems) {}

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
    if (replaced) result.set_origin(Node::Origin::reference);
    return result;
  }

  std::optional<std::string> look_up(std::string_view reference, const Node& node) {
    if (reference.starts_with("env:")) {
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
    if (!plain_names_) {
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

  std::optional<std::string> read_file(std::string_view path, const Node& node) {
    const auto refuse = [&](std::string_view why) {
      report(node, fmt::format("${{file:{}}}: {}", path, why),
             "Give the path of a file that the relay may read.");
      return std::nullopt;
    };
    if (!path.starts_with('/')) return refuse("the path must begin with /");
    const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(std::string(path).c_str(), "rbe"));
    if (!file) return refuse(std::generic_category().message(errno));
    std::string content(kLargestFile + 1, '\0');
    content.resize(std::fread(content.data(), 1, content.size(), file.get()));
    if (std::ferror(file.get())) return refuse(std::generic_category().message(errno));
    if (content.size() > kLargestFile) return refuse("the file is larger than 1 MiB");
    if (content.ends_with('\n')) content.pop_back();
    if (content.ends_with('\r')) content.pop_back();
    return content;
  }

  // A default may be a secret: only the name is shown.
  static std::string_view shown(std::string_view reference) {
    return reference.substr(0, std::min(reference.find(":-"), std::size_t{60}));
  }

  void report_unset(std::string_view reference, std::string_view name, const Node& node) {
    report(node,
           fmt::format("${{{}}}: the environment variable {} is not set", shown(reference), name),
           fmt::format("Set {} in the environment of the relay and start it again.", name));
  }

  void report(const Node& node, std::string_view what, std::string remedy) {
    problems_.push_back(problem(node.place(), "unresolved_reference", what, std::move(remedy)));
  }

  static constexpr const char* kForms =
      "References are ${env:NAME} and ${file:/path}, in files also ${NAME} and ${NAME:-default}; "
      "$${ stands for ${ itself.";

  bool plain_names_;
  std::vector<Error>& problems_;
};

}  // namespace

Node resolve_references(const Node& node, bool plain_names, std::vector<Error>& problems) {
  return Resolver(plain_names, problems).resolve(node);
}

Result<Node> resolve_references(const Node& node, bool plain_names) {
  std::vector<Error> problems;
  Node resolved = resolve_references(node, plain_names, problems);
  if (!problems.empty()) return fail(std::move(problems.front()));
  return resolved;
}

}  // namespace relay::config
