#include "connector/registry.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/text.h"

namespace relay {

namespace {

/// Backends whose folder offers types under other names than the backend's own.
struct TypeOfBackend {
  std::string_view type;
  std::string_view backend;
};
constexpr std::array kTypesOfBackends = {
    TypeOfBackend{"file", "stdout"},       TypeOfBackend{"stdin", "stdout"},
    TypeOfBackend{"http", "webhook"},      TypeOfBackend{"inbox", "pg-inbox"},
    TypeOfBackend{"pg_inbox", "pg-inbox"},
};

std::string_view backend_of(std::string_view type) {
  const auto found = std::ranges::find(kTypesOfBackends, type, &TypeOfBackend::type);
  return found == kTypesOfBackends.end() ? type : found->backend;
}

template <class Type>
Error missing(std::string_view kind, std::string_view name, std::span<const Type> types,
              std::span<const std::string> left_out) {
  const std::string_view backend = backend_of(name);
  if (std::ranges::find(left_out, backend) != left_out.end()) {
    return Error{ErrorClass::misconfigured,
                 "backend_left_out",
                 fmt::format("{} type '{}' was left out of this build", kind, name),
                 fmt::format("build with -DRELAY_BACKENDS=all, or with {} in that list", backend),
                 {}};
  }
  std::vector<std::string_view> known;
  std::vector<std::string_view> spellings;
  for (const Type& type : types) {
    known.push_back(type.name);
    spellings.push_back(type.name);
    spellings.insert(spellings.end(), type.aliases.begin(), type.aliases.end());
  }
  std::string remedy = known.empty() ? fmt::format("this build has no {} backend", kind)
                                     : "known are " + join_names(known);
  if (const auto near = nearest(name, spellings); !near.empty()) {
    remedy = fmt::format("did you mean '{}'? {}", near, remedy);
  }
  return Error{ErrorClass::misconfigured,
               "unknown_backend",
               fmt::format("{} type '{}' is not known", kind, name),
               std::move(remedy),
               {}};
}

}  // namespace

void Registry::add(SinkType type) {
  catalogue_.sinks.push_back({type.name, type.aliases, type.related, type.options});
  sinks_.push_back(std::move(type));
}

void Registry::add(SourceType type) {
  catalogue_.sources.push_back(
      {type.name, type.aliases, type.related, type.options, type.reads_outbox});
  sources_.push_back(std::move(type));
}

void Registry::leave_out(std::string name) {
  left_out_.push_back(std::move(name));
}

void Registry::uses(Library library) {
  if (std::ranges::find(libraries_, library.name, &Library::name) != libraries_.end()) return;
  libraries_.push_back(std::move(library));
}

const SinkType* Registry::sink(std::string_view name) const {
  return config::find_type(sinks_, name);
}

const SourceType* Registry::source(std::string_view name) const {
  return config::find_type(sources_, name);
}

Error Registry::missing_sink(std::string_view name) const {
  return missing("sink", name, sinks(), left_out_);
}

Error Registry::missing_source(std::string_view name) const {
  return missing("source", name, sources(), left_out_);
}

}  // namespace relay
