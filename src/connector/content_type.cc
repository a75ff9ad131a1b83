#include "connector/content_type.h"

#include <cstddef>

namespace relay {

bool names_content_type(std::string_view name) {
  constexpr std::string_view kWord = "contenttype";
  if (name.size() < kWord.size() || name.size() > kWord.size() + 1) return false;
  std::size_t at = 0;
  for (const char c : name) {
    if (at == 7 && name.size() > kWord.size() && (c == '-' || c == '_')) continue;
    if (at == kWord.size() || (c | 0x20) != kWord[at]) return false;
    ++at;
  }
  return at == kWord.size();
}

}  // namespace relay
