#pragma once

#include <string_view>
#include <vector>

#include "config/fields.h"

namespace relay::config {

/// The value of an option in the form that Values keeps: durations in milliseconds, sizes in bytes,
/// lists and maps of text. Misconfigured, with what is allowed, where the value does not fit.
Result<Node> convert(const Field& field, const Node& node);

/// The parts of a comma-separated list of names.
std::vector<std::string_view> split_names(std::string_view names);

}  // namespace relay::config
