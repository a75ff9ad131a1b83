#pragma once

#include <string>
#include <string_view>

namespace relay::pg_inbox {

/// Whether PostgreSQL's jsonb takes this text. True as well for a text that only a limit of the
/// server makes invalid (a number beyond `numeric`, nesting beyond its stack, a string of 256 MB):
/// the server refuses that.
bool jsonb_takes(std::string_view text);

/// Replaces a payload that jsonb does not take:
/// {"raw_base64": ..., "content_type": ...}.
std::string raw_payload(std::string_view body, std::string_view content_type);

/// Whether a column of type text takes these bytes: UTF-8 without a NUL.
bool text_takes(std::string_view bytes);

}  // namespace relay::pg_inbox
