#include "schema/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#include "schema/embedded.h"

namespace relay::schema {

namespace {

/// Takes what stands before the separator off the text, and the separator with it.
std::string_view cut(std::string_view& text, char separator) {
  const auto end = std::min(text.find(separator), text.size());
  const std::string_view first = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return first;
}

Manifest parse(std::string_view text) {
  Manifest manifest;
  while (!text.empty()) {
    const std::string_view line = cut(text, '\n');
    if (!line.empty() && line.front() != '#') add_line(manifest, line);
  }
  return manifest;
}

Manifest parse_embedded() {
  for (const EmbeddedFile& file : embedded_files()) {
    if (file.name == "manifest.txt") return parse(file.text);
  }
  return {};
}

std::set<std::string, std::less<>> split(std::string_view list) {
  std::set<std::string, std::less<>> parts;
  while (!list.empty()) {
    const auto end = std::min(list.find(','), list.size());
    parts.emplace(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return parts;
}

}  // namespace

std::string_view Object::attribute(std::string_view key) const {
  const auto found = attributes.find(key);
  return found == attributes.end() ? std::string_view() : found->second;
}

std::string_view Object::part() const {
  const std::size_t length = whole().size();
  return length > 0 && length < name.size() ? std::string_view(name).substr(length + 1) : name;
}

void add_line(Manifest& manifest, std::string_view line) {
  std::string_view title = cut(line, '\t');
  Object& object = manifest[std::string(title)];
  object.kind = cut(title, ' ');
  object.name = title;
  while (!line.empty()) {
    std::string_view attribute = cut(line, '\t');
    const std::string_view name = cut(attribute, '=');
    object.attributes.insert_or_assign(std::string(name), std::string(attribute));
  }
}

std::string without(std::string_view list, std::string_view other) {
  const auto some = split(list);
  const auto others = split(other);
  std::vector<std::string> left;
  std::ranges::set_difference(some, others, std::back_inserter(left));
  return fmt::format("{}", fmt::join(left, ", "));
}

const Manifest& needed_manifest() {
  static const Manifest manifest = parse_embedded();
  return manifest;
}

}  // namespace relay::schema
