#pragma once

#include <string>
#include <string_view>

namespace relay::config {

/// A column of a table of ours as it may be shown: errors, subjects, headers and configurations
/// without secrets, also those that an older version stored; all other columns as they are.
std::string redacted_column(std::string_view column, std::string_view text);

/// The same for rows as JSON: each member is treated as a column.
std::string redacted_rows(std::string_view json);

}  // namespace relay::config
