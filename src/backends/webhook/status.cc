#include "backends/webhook/status.h"

#include <fmt/core.h>

#include <charconv>

#include "core/text.h"

namespace relay::webhook {

namespace {

// The first and the last status that "200" or "2xx" means; 0: it means none.
std::pair<int, int> range_of(std::string_view text) {
  if (text.size() == 3 && text[0] >= '1' && text[0] <= '5') {
    if (text.substr(1) == "xx" || text.substr(1) == "XX") {
      const int first = (text[0] - '0') * 100;
      return {first, first + 99};
    }
    int status = 0;
    const auto end = text.data() + text.size();
    if (std::from_chars(text.data(), end, status).ptr == end) return {status, status};
  }
  return {0, 0};
}

}  // namespace

Result<StatusSet> StatusSet::parse(std::span<const std::string> texts, std::string_view option) {
  StatusSet set;
  for (const std::string_view list : texts) {
    std::size_t begin = 0;
    while (begin <= list.size()) {
      const auto comma = std::min(list.find(',', begin), list.size());
      const auto word = trimmed(list.substr(begin, comma - begin), " ");
      begin = comma + 1;
      if (word.empty()) continue;
      const auto [first, last] = range_of(word);
      if (first == 0) {
        return fail(ErrorClass::misconfigured, "bad_status",
                    fmt::format("{}: '{}' is no HTTP status", option, word),
                    "write statuses such as \"429\", and classes of them such as \"5xx\"");
      }
      for (int status = first; status <= last; ++status) {
        set.statuses_.set(static_cast<std::size_t>(status));
      }
    }
  }
  return set;
}

StatusRules::Meaning StatusRules::of(int status) const {
  if (success.contains(status)) return Meaning::delivered;
  if (retry.contains(status)) return Meaning::retry;
  if (misconfigured.contains(status)) return Meaning::misconfigured;
  if (pause.contains(status)) return Meaning::pause;
  return status < 400 ? Meaning::misconfigured : Meaning::rejected;
}

}  // namespace relay::webhook
