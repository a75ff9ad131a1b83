#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace relay::secrets {

/// A shorter text is not remembered: as a secret it is worth little, and replacing it everywhere
/// would make messages unreadable.
inline constexpr std::size_t kShortest = 8;

/// Replaces a secret that has no name of its own.
inline constexpr std::string_view kMask = "***";

/// Remembers a secret, so that `masked` finds it: as it is, and as a URL, JSON or base64 (also
/// behind a user name, as in basic authentication) would hold it. `name` is shown in its place,
/// such as "${env:NATS_TOKEN}"; empty: kMask. Of a URL, only what may be secret in it is
/// remembered, and of a very long text the first 16 KiB. Any thread.
void remember(std::string_view secret, std::string_view name = {});

/// The text without secrets. Replaced are: each part of 8 bytes or more of a remembered secret,
/// whatever stands around it and wherever it was cut; the credentials of URLs; what follows names
/// such as `password=` and `Authorization:`; in URLs, values and path segments that look like a
/// token. Any thread. For messages to people, never for data that is sent.
std::string masked(std::string_view text);

/// Whether a value of this name is a secret: "nats_token", "sasl.password", "apiKey".
bool is_secret_name(std::string_view name);
/// Whether a header of this name carries a secret: Authorization, Cookie, X-Api-Key and the like.
bool is_secret_header(std::string_view name);

/// The secrets in a text that may be a URL, a list of URLs or a connection string: passwords, user
/// names without password, values of secret parameters, and what looks like a token. Each as it is
/// written, and percent-decoded where that differs.
std::vector<std::string> secrets_in_url(std::string_view text);

}  // namespace relay::secrets
