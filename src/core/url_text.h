#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace relay::secrets {

/// Key=value pairs as libpq takes them, with at least one of its keywords.
bool is_connection_string(std::string_view text);

/// Begins with a scheme and "://".
bool is_url(std::string_view text);

/// Replaces secrets that the shape of a text gives away: see `masked`.
std::string mask_structure(std::string_view text);

/// Path and query of the http URLs in a text, without the templates in them. Services put tokens
/// into paths that look like any other.
std::vector<std::string> paths_in_url(std::string_view text);

}  // namespace relay::secrets
