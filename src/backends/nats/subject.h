#pragma once

#include <string>
#include <string_view>

namespace relay::nats {

/// Appends a value as part of one token of a subject. Space, dot, `*`, `>`, `%` and control
/// characters become `%XX` (two upper-case hex digits of the byte), an empty value becomes a lone
/// `%`; all else stays. Reversible: no two values give the same text.
void escape_token(std::string& out, std::string_view value);
/// The same for each part between dots, which become levels of the subject. An empty part is a lone
/// `%`.
void escape_levels(std::string& out, std::string_view value);

/// Whether a header is part of JetStream's protocol: its name begins with `Nats-`, in any case.
bool is_protocol_header(std::string_view name);

/// What is wrong with a rendered subject, or empty. Legal: tokens that are not empty, between dots,
/// without white space, control characters or wildcards, no longer than a server takes.
std::string_view subject_problem(std::string_view subject);

/// Whether a token of a subject, or of a template of one, is a wildcard.
bool has_wildcard(std::string_view subject);

/// The pattern that covers all that `subject` (a template) can become: a token that holds a
/// variable is `*`. Where values have levels (`escape_levels`), the first such token ends the
/// pattern as `>`.
std::string subject_pattern(std::string_view subject, bool values_have_levels = false);

/// What is wrong with a header, or empty.
std::string_view header_problem(std::string_view name, std::string_view value);

}  // namespace relay::nats
