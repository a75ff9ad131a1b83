#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "config/tree.h"

/// The words of a JSON Schema (draft 2020-12) as nodes.
namespace relay::cli::schema {

using config::Node;

inline Node text(std::string_view value) {
  return {std::string(value), {}};
}

inline Node object(Node::Object members) {
  return {std::move(members), {}};
}

inline Node list(Node::Array elements) {
  return {std::move(elements), {}};
}

inline Node number(double value) {
  if (std::trunc(value) == value && std::abs(value) < 9e18) {
    return {static_cast<std::int64_t>(value), {}};
  }
  return {value, {}};
}

template <class Names>
Node texts(const Names& names) {
  Node::Array elements;
  for (const auto& name : names) elements.push_back(text(name));
  return list(std::move(elements));
}

/// One of these names, or null.
template <class Names>
Node one_of_names_or_null(const Names& names) {
  Node allowed = texts(names);
  allowed.array()->push_back({});
  return object({{"enum", std::move(allowed)}});
}

/// The schema under this name in $defs, or inside of it ("options/properties/batch_size").
inline Node reference_to(std::string_view definition) {
  return object({{"$ref", text("#/$defs/" + std::string(definition))}});
}

inline Node all_of(Node::Array schemas) {
  return object({{"allOf", list(std::move(schemas))}});
}

inline Node any_of(Node::Array schemas) {
  return object({{"anyOf", list(std::move(schemas))}});
}

inline Node negation(Node schema) {
  return object({{"not", std::move(schema)}});
}

inline Node when(Node condition, Node consequence) {
  return object({{"if", std::move(condition)}, {"then", std::move(consequence)}});
}

/// An object that has the member `key`, which fits `schema`.
inline Node with_member(std::string_view key, Node schema) {
  return object({{"type", text("object")},
                 {"properties", object({{std::string(key), std::move(schema)}})},
                 {"required", list({text(key)})}});
}

}  // namespace relay::cli::schema
