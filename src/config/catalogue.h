#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "config/fields.h"

namespace relay::config {

/// A type of source or sink, as a configuration names it.
struct EndType {
  std::string name;                  ///< "nats"
  std::vector<std::string> aliases;  ///< {"http"} for webhook
  /// Types whose prefixes its options may have in the flat form too ("stdout_format" of a file).
  std::vector<std::string> related;
  FieldTable options;
  bool reads_outbox = false;  ///< of a source: an outbox, here or elsewhere
};

/// The types of the ends of a pipeline that names no type but gives one of their options that stand
/// without a prefix.
inline constexpr std::string_view kImpliedSource = "outbox";
inline constexpr std::string_view kImpliedSink = "pg-inbox";

/// The type of this name or alias; null where there is none.
template <class Type>
const Type* find_type(const std::vector<Type>& types, std::string_view name) {
  const auto found = std::ranges::find_if(types, [&](const Type& type) {
    return type.name == name || std::ranges::find(type.aliases, name) != type.aliases.end();
  });
  return found == types.end() ? nullptr : &*found;
}

/// The types of sources and sinks that a configuration may name. Filled once at start, then only
/// read.
struct Catalogue {
  std::vector<EndType> sources;
  std::vector<EndType> sinks;

  const EndType* source(std::string_view name) const { return find_type(sources, name); }
  const EndType* sink(std::string_view name) const { return find_type(sinks, name); }
};

}  // namespace relay::config
