#include "config/catalogue.h"

#include <algorithm>

namespace relay::config {
namespace {

const EndType* find(const std::vector<EndType>& types, std::string_view name) {
  const auto found = std::ranges::find_if(types, [&](const EndType& type) {
    return type.name == name || std::ranges::find(type.aliases, name) != type.aliases.end();
  });
  return found == types.end() ? nullptr : &*found;
}

}  // namespace

const EndType* Catalogue::source(std::string_view name) const {
  return find(sources, name);
}

const EndType* Catalogue::sink(std::string_view name) const {
  return find(sinks, name);
}

}  // namespace relay::config
