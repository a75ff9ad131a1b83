#pragma once

#include <string_view>

namespace relay {

/// Does a header (an attribute, a field) of this name say the content type? Brokers without a place
/// of their own for it leave the name to those who publish: Content-Type, content_type,
/// contentType.
bool names_content_type(std::string_view name);

}  // namespace relay
