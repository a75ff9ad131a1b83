#include "pipeline/seal.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace relay {

Seal::Seal(std::vector<Part> parts) {
  for (Part& part : parts) {
    std::replace(part.name.begin(), part.name.end(), '}', '_');  // it would end the name
    const bool known = std::any_of(parts_.begin(), parts_.end(), [&](const Part& other) {
      return other.name == part.name || other.secret == part.secret;
    });
    if (!known && !part.secret.empty()) parts_.push_back(std::move(part));
  }
  std::stable_sort(parts_.begin(), parts_.end(),
                   [](const Part& a, const Part& b) { return a.secret.size() > b.secret.size(); });
}

const Seal::Part* Seal::part_at(std::string_view text, std::size_t at) const {
  const auto found = std::find_if(parts_.begin(), parts_.end(), [&](const Part& part) {
    return text.substr(at).starts_with(part.secret) &&
           (part.secret.size() >= kShortest || part.secret == text);
  });
  return found == parts_.end() ? nullptr : &*found;
}

bool Seal::has_secret(std::string_view text) const {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (part_at(text, i)) return true;
  }
  return false;
}

std::string Seal::closed(std::string_view text) const {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (const Part* part = part_at(text, i)) {
      out += "${" + part->name + "}";
      i += part->secret.size();
      continue;
    }
    if (text[i] == '$') out += '$';  // a $ of the message's own is doubled
    out += text[i++];
  }
  return out;
}

Result<std::string> Seal::opened(std::string_view text) const {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (!text.substr(i).starts_with("${")) {
      i += text.substr(i).starts_with("$$") ? 1 : 0;
      out += text[i++];
      continue;
    }
    const auto end = text.find('}', i);
    const std::string_view name = text.substr(i + 2, end - i - 2);
    const auto part = std::find_if(parts_.begin(), parts_.end(),
                                   [&](const Part& other) { return other.name == name; });
    if (end == std::string_view::npos || part == parts_.end()) {
      return fail(ErrorClass::rejected, "missing_secret",
                  fmt::format("it was sent with ${{{}}}, which the pipeline's configuration no "
                              "longer holds",
                              name),
                  "put it back, or discard the dead letter");
    }
    out += part->secret;
    i = end + 1;
  }
  return out;
}

void Seal::close(DeadLetter& letter) const {
  letter.sealed = has_secret(letter.subject) ||
                  std::any_of(letter.headers.begin(), letter.headers.end(),
                              [&](const auto& header) { return has_secret(header.second); });
  if (!letter.sealed) return;
  letter.subject = closed(letter.subject);
  for (auto& [name, value] : letter.headers) value = closed(value);
}

Result<void> Seal::open(DeadLetter& letter) const {
  if (!letter.sealed) return {};
  auto subject = opened(letter.subject);
  if (!subject) return fail(subject.error());
  letter.subject = std::move(*subject);
  for (auto& [name, value] : letter.headers) {
    auto text = opened(value);
    if (!text) return fail(text.error());
    value = std::move(*text);
  }
  letter.sealed = false;
  return {};
}

}  // namespace relay
