#pragma once

#include <string_view>

#include "config/fields.h"
#include "config/tree.h"

namespace relay::cli {

/// A text that holds a reference, as a regular expression of JSON Schema; $${ stands for ${ itself.
inline constexpr std::string_view kReferencePattern = R"((^|[^$])\$\{)";

/// What the value of an option may be, as a JSON Schema; null counts as not given. A text with a
/// reference fits every type but a map, unless `references` is false. A range is checked of numbers
/// only, not of texts with a unit.
config::Node value_schema(const config::Field& field, bool references);

/// What an object may hold that has such options, under their own names.
config::Node properties_of(config::FieldTable fields, bool references);

}  // namespace relay::cli
