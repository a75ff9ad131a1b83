#include "config/literals.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/secrets.h"

namespace relay::config {
namespace {

bool is_url_option(std::string_view name) {
  return name.ends_with("url") || name == "servers" || name == "brokers";
}

/// The words of "Bearer xyz", or of several secrets: each may appear alone in a text.
void add_words(std::string_view text, const SecretPart& whole, std::vector<SecretPart>& parts) {
  parts.push_back(whole);
  if (text.find(' ') == std::string_view::npos) return;
  while (!text.empty()) {
    const auto space = std::min(text.find(' '), text.size());
    if (space >= secrets::kShortest) {
      parts.push_back({whole.option, std::string(text.substr(0, space)), whole.literal});
    }
    text.remove_prefix(std::min(space + 1, text.size()));
  }
}

bool is_template(std::string_view text) {
  return text.find('{') != std::string_view::npos;
}

}  // namespace

std::vector<SecretPart> secret_parts(const Field& field, const Node& node) {
  std::vector<SecretPart> parts;
  if (!field.secret) return parts;
  const bool literal = node.origin() != Node::Origin::reference;
  if (const std::string* text = node.text(); text && !text->empty()) {
    if (is_url_option(field.name)) {
      for (std::string& part : secrets::secrets_in_url(*text)) {
        parts.push_back({std::string(field.name), std::move(part), literal});
      }
    } else {
      add_words(*text, {std::string(field.name), *text, literal}, parts);
    }
  }
  if (!node.object()) return parts;
  for (const auto& [key, value] : *node.object()) {
    const bool secret = secrets::is_secret_name(key) || secrets::is_secret_header(key);
    if (!secret || !value.text() || value.text()->empty()) continue;
    add_words(*value.text(),
              {fmt::format("{}.{}", field.name, key), *value.text(),
               value.origin() != Node::Origin::reference},
              parts);
  }
  return parts;
}

std::vector<SecretPart> secret_parts(const Values& values, FieldTable table) {
  std::vector<SecretPart> all;
  for (const Field& field : table) {
    const Node* node = field.secret ? values.given(field.name) : nullptr;
    if (!node) continue;
    auto parts = secret_parts(field, *node);
    std::move(parts.begin(), parts.end(), std::back_inserter(all));
  }
  return all;
}

std::vector<SecretPart> secret_headers(const Node::Object& headers) {
  std::vector<SecretPart> parts;
  for (const auto& [name, value] : headers) {
    if (!secrets::is_secret_header(name) || !value.text() || value.text()->empty()) continue;
    if (is_template(*value.text())) continue;
    parts.push_back({fmt::format("headers.{}", name), *value.text(),
                     value.origin() != Node::Origin::reference});
  }
  return parts;
}

void remember_secrets(const Values& values, FieldTable table) {
  for (const SecretPart& part : secret_parts(values, table)) secrets::remember(part.text);
}

Error literal_warning(const SecretPart& part, std::string_view place, Written written) {
  std::string remedy =
      "Write ${env:NAME} or ${file:/path} in its place, which may also be a part of the value.";
  if (written == Written::in_catalog) {
    remedy += " For a pipeline in SQL, the relay must be started with --allow-secret 'env:NAME'.";
  }
  return problem(
      place, "literal_secret",
      fmt::format("{} holds a secret as it is: everyone who may read the configuration can read it",
                  part.option),
      std::move(remedy));
}

std::vector<Error> warn_of_literals(const Values& values, FieldTable table, Written written) {
  std::vector<Error> warnings;
  std::string last;
  for (const SecretPart& part : secret_parts(values, table)) {
    const std::string field = part.option.substr(0, part.option.find('.'));
    const Node* node = values.given(field);
    const bool here = node && node->origin() != Node::Origin::outside;
    if (!part.literal || !here || part.option == last) continue;
    last = part.option;
    warnings.push_back(literal_warning(part, values.place(field), written));
  }
  return warnings;
}

}  // namespace relay::config
