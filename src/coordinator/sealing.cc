#include "coordinator/sealing.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>

#include "core/url_text.h"

namespace relay::coordinator {

namespace {

/// What a value is in a message: without the credentials of a URL, which no subject has, and
/// between the places of a template, which rows fill.
std::vector<std::string> pieces_of(std::string_view value) {
  std::string text(value);
  if (secrets::is_url(text)) {
    const auto begin = text.find("://") + 3;
    const auto end = text.find_first_of("/?#", begin);
    const auto at = text.substr(0, end).rfind('@');
    if (at != std::string::npos && at >= begin) text.erase(begin, at + 1 - begin);
  }
  std::vector<std::string> pieces;
  std::size_t from = 0;
  while (from < text.size()) {
    const auto brace = std::min(text.find('{', from), text.size());
    if (brace > from) pieces.push_back(text.substr(from, brace - from));
    from = std::min(text.find('}', brace), text.size());
    while (from < text.size() && text[from] == '}') ++from;
  }
  return pieces;
}

}  // namespace

Seal make_seal(const config::PipelineConfig& config, const std::string& subject_template,
               std::vector<config::SecretPart> sink_secrets) {
  std::vector<Seal::Part> parts;
  const auto is_sent = [&](const std::string& text) {
    return subject_template.find(text) != std::string::npos ||
           std::any_of(
               config.options.headers.begin(), config.options.headers.end(),
               [&](const auto& header) { return header.second.find(text) != std::string::npos; });
  };
  const auto add = [&](const std::string& name, std::string text) {
    if (text.empty() || !is_sent(text)) return;
    const auto same = std::count_if(parts.begin(), parts.end(), [&](const Seal::Part& part) {
      return part.name == name || part.name.starts_with(name + "#");
    });
    parts.push_back({same == 0 ? name : fmt::format("{}#{}", name, same + 1), std::move(text)});
  };
  for (const auto& reference : config.references) {
    for (std::string& piece : pieces_of(reference.value)) add(reference.name, std::move(piece));
  }
  for (config::SecretPart& part : config::secret_headers(config.headers)) {
    if (part.literal) add(part.option, std::move(part.text));
  }
  for (config::SecretPart& part : sink_secrets) {
    if (part.literal) add(part.option, std::move(part.text));
  }
  return Seal(std::move(parts));
}

}  // namespace relay::coordinator
