#pragma once

#include <string>
#include <string_view>

namespace relay::pg_inbox {

/// Whether PostgreSQL's jsonb takes this text. Decides everything but what depends on the server's
/// limits (numbers beyond `numeric`, nesting beyond its stack, a string of 256 MB): there it says
/// yes, and the server refuses.
bool jsonb_takes(std::string_view text);

/// What is stored in the place of a payload that jsonb does not take:
/// {"raw_base64": ..., "content_type": ...}.
std::string raw_payload(std::string_view body, std::string_view content_type);

/// Whether a column of type text takes these bytes: UTF-8 without a NUL.
bool text_takes(std::string_view bytes);

}  // namespace relay::pg_inbox
