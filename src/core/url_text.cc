#include "core/url_text.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/percent.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::secrets {
namespace {

using std::string_view;

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_letter(char c) {
  return is_letter(c) || is_digit(c) || c == '_' || c == '-' || c == '.';
}
bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

bool all_digits(string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

/// A part of a text, as offsets.
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
};

string_view cut(string_view text, Span span) {
  return text.substr(span.begin, span.end - span.begin);
}

bool looks_like_token(string_view text, std::size_t least, bool mixed) {
  bool upper = false;
  bool lower = false;
  bool digit = false;
  for (const char c : text) {
    if (!is_name_letter(c) && string_view("%+=~").find(c) == string_view::npos) return false;
    upper = upper || (c >= 'A' && c <= 'Z');
    lower = lower || (c >= 'a' && c <= 'z');
    digit = digit || is_digit(c);
  }
  return text.size() >= least && digit && (mixed ? upper && lower : upper || lower);
}

/// One URL inside a text: where it is, and which of its parts are secret.
struct FoundUrl {
  Span scheme;
  Span rest;  ///< what follows "://"
  Span credentials;
  std::vector<Span> tokens;
};

/// The position of the @ that ends a URL's credentials; npos if it has none. A password may hold
/// any character unescaped. If there are two readings, this takes the one that hides more: in a URL
/// with a colon before its path, everything up to the last @ is hidden.
std::size_t end_of_credentials(string_view rest) {
  const auto head = rest.substr(0, rest.find_first_of("/?#"));
  const bool may_have_password = !head.starts_with('[') && head.find(':') != string_view::npos;
  if (head.find('@') == string_view::npos && !may_have_password) return string_view::npos;
  return rest.rfind('@');
}

void find_tokens(string_view text, FoundUrl& url) {
  const string_view scheme = cut(text, url.scheme);
  const bool http = equal_ignoring_case(scheme, "http") || equal_ignoring_case(scheme, "https");
  std::size_t at = url.credentials.end > 0 ? url.credentials.end : url.rest.begin;
  at = std::min(text.find_first_of("/?#", at), url.rest.end);
  bool path = true;
  while (at < url.rest.end) {
    path = path && text[at] == '/';
    Span part{at + 1, std::min(text.find_first_of(path ? "/?#" : "&;#?", at + 1), url.rest.end)};
    at = part.end;
    if (path) {
      if (http && looks_like_token(cut(text, part), 20, true)) url.tokens.push_back(part);
      continue;
    }
    const auto equals = cut(text, part).find('=');
    if (equals == string_view::npos) continue;
    const string_view name = text.substr(part.begin, equals);
    part.begin += equals + 1;
    const string_view value = cut(text, part);
    const bool named = is_secret_name(name) || equal_ignoring_case(name, "key") ||
                       equal_ignoring_case(name, "auth") || equal_ignoring_case(name, "code");
    if (!value.empty() && !value.starts_with("${") && !value.starts_with('{') &&
        (named || looks_like_token(value, 16, false))) {
      url.tokens.push_back(part);
    }
  }
}

/// Whether `text` begins with a URL that may stand in one list with URLs of `scheme`: of the same
/// scheme, or of another one that a list of NATS servers may have.
bool continues_list(string_view text, string_view scheme) {
  if (!is_url(text)) return false;
  constexpr std::array<string_view, 4> kOfNats = {"nats", "tls", "ws", "wss"};
  const auto of_nats = [&](string_view name) {
    return std::any_of(kOfNats.begin(), kOfNats.end(),
                       [&](string_view known) { return equal_ignoring_case(name, known); });
  };
  const string_view other = text.substr(0, text.find("://"));
  return equal_ignoring_case(other, scheme) || (of_nats(other) && of_nats(scheme));
}

/// The end of the first of several comma-separated URLs. A comma inside a password does not count.
std::size_t end_in_list(string_view rest, string_view scheme) {
  for (std::size_t comma = rest.find(','); comma != string_view::npos;
       comma = rest.find(',', comma + 1)) {
    const string_view first = rest.substr(0, comma);
    const auto colon = first.find(':');
    const bool whole = first.find('@') != string_view::npos || colon == string_view::npos ||
                       all_digits(first.substr(colon + 1, first.find('/', colon) - colon - 1)) ||
                       first.starts_with('[');
    if (whole && continues_list(rest.substr(comma + 1), scheme)) return comma;
  }
  return rest.size();
}

/// The next URL that begins behind `from`.
std::optional<FoundUrl> next_url(string_view text, std::size_t from) {
  constexpr string_view kMark = "://";
  const auto mark = text.find(kMark, from);
  if (mark == string_view::npos) return std::nullopt;
  FoundUrl url;
  url.scheme = {mark, mark};
  while (url.scheme.begin > from &&
         (is_letter(text[url.scheme.begin - 1]) || is_digit(text[url.scheme.begin - 1]))) {
    --url.scheme.begin;
  }
  url.rest = {mark + kMark.size(), mark + kMark.size()};
  const auto ends = [](char c) {
    return static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '\'' || c == '<' || c == '>' ||
           c == '\\' || c == '`';
  };
  while (url.rest.end < text.size() && !ends(text[url.rest.end])) ++url.rest.end;
  url.rest.end = url.rest.begin + end_in_list(cut(text, url.rest), cut(text, url.scheme));
  const string_view rest = cut(text, url.rest);
  if (const auto at = end_of_credentials(rest); at != string_view::npos) {
    url.credentials = {url.rest.begin, url.rest.begin + at};
  }
  find_tokens(text, url);
  return url;
}

std::string mask_urls(string_view text) {
  std::string out;
  std::size_t done = 0;
  const auto hide = [&](Span span) {
    if (cut(text, span).starts_with("${") && cut(text, span).ends_with('}')) return;
    out.append(text.substr(done, span.begin - done));
    out.append(kMask);
    done = span.end;
  };
  std::size_t from = 0;
  while (const auto url = next_url(text, from)) {
    if (url->credentials.end > url->credentials.begin) hide(url->credentials);
    for (const Span& token : url->tokens) {
      if (token.begin >= done) hide(token);
    }
    from = url->rest.end;
  }
  out.append(text.substr(done));
  return out;
}

/// The end of a value that follows a name and `=` or `:`. `quote` is the quote around it.
std::size_t end_of_value(string_view text, std::size_t at, char quote, string_view ends) {
  for (; at < text.size(); ++at) {
    if (quote != 0 && text[at] == '\\') {
      ++at;
    } else if (quote != 0 ? text[at] == quote
                          : static_cast<unsigned char>(text[at]) < 0x20 ||
                                ends.find(text[at]) != string_view::npos) {
      return at;
    }
  }
  return text.size();
}

/// The value that belongs to the name which ends at `end`; empty where none follows.
Span value_behind(string_view text, string_view name, std::size_t end) {
  const bool header = is_secret_header(name);
  if (!header && (!is_secret_name(name) || name.starts_with("allow"))) return {};
  std::size_t at = end;
  const bool quoted = at < text.size() && (text[at] == '"' || text[at] == '\'');
  if (quoted) ++at;
  while (at < text.size() && is_blank(text[at])) ++at;
  if (at >= text.size()) return {};
  // A colon behind a word such as "password" announces a value in JSON and headers, not in prose.
  const bool assigned = text[at] == '=' || (text[at] == ':' && (quoted || header));
  if (!assigned) return {};
  ++at;
  while (at < text.size() && is_blank(text[at])) ++at;
  if (at >= text.size()) return {};
  char quote = 0;
  if (text[at] == '"' || text[at] == '\'') quote = text[at++];
  return {at, end_of_value(text, at, quote, header ? "\"'" : " \"'&;,)")};
}

std::string mask_assignments(string_view text) {
  std::string out;
  std::size_t done = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (!is_name_letter(text[i])) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && is_name_letter(text[end])) ++end;
    const Span value = value_behind(text, text.substr(i, end - i), end);
    i = end;
    const string_view shown = cut(text, value);
    if (shown.empty() || shown == kMask) continue;
    if (shown.find("${") != string_view::npos && shown.ends_with('}')) continue;
    out.append(text.substr(done, value.begin - done));
    out.append(kMask);
    done = i = value.end;
  }
  out.append(text.substr(done));
  return out;
}

void add_part(std::vector<std::string>& parts, string_view part) {
  if (part.empty()) return;
  parts.emplace_back(part);
  if (std::string decoded = percent_decoded_where_possible(part); decoded != part) {
    parts.push_back(std::move(decoded));
  }
}

/// The values of `password` and the like in a connection string.
void add_assigned(string_view text, std::vector<std::string>& parts) {
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && is_name_letter(text[end])) ++end;
    if (end > i) add_part(parts, cut(text, value_behind(text, text.substr(i, end - i), end)));
    i = std::max(end, i + 1);
  }
}

}  // namespace

bool is_secret_name(string_view name) {
  std::string plain;
  for (const char c : lower_case(name)) {
    if (is_letter(c)) plain += c;
  }
  constexpr std::array<string_view, 9> kOnlyNamed = {
      "file", "path", "location", "header", "from", "by", "timeout", "endpoint", "url"};
  for (const string_view end : kOnlyNamed) {
    if (plain.ends_with(end)) return false;
  }
  constexpr std::array<string_view, 13> kSecret = {
      "password", "passwd",    "passphrase", "pwd",        "secret",    "token",    "apikey",
      "sig",      "accesskey", "privatekey", "credential", "signature", "authvalue"};
  return std::any_of(kSecret.begin(), kSecret.end(), [&](string_view word) {
    return word == "sig" ? plain == word : plain.find(word) != std::string::npos;
  });
}

bool is_secret_header(string_view name) {
  constexpr std::array<string_view, 6> kSecret = {
      "authorization", "proxy-authorization",  "cookie",
      "set-cookie",    "x-amz-security-token", "x-auth"};
  const bool known = std::any_of(kSecret.begin(), kSecret.end(), [&](string_view other) {
    return equal_ignoring_case(name, other);
  });
  if (known) return true;
  const bool extension = name.size() > 2 && (name[0] == 'x' || name[0] == 'X') && name[1] == '-';
  return (extension || name.find('-') != string_view::npos) && is_secret_name(name);
}

bool is_connection_string(string_view text) {
  constexpr std::array<string_view, 7> kKeys = {"host",    "hostaddr", "dbname",  "user",
                                                "service", "port",     "password"};
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && is_name_letter(text[end])) ++end;
    const bool key = std::find(kKeys.begin(), kKeys.end(), text.substr(i, end - i)) != kKeys.end();
    std::size_t next = end;
    while (next < text.size() && is_blank(text[next])) ++next;
    if (key && next < text.size() && text[next] == '=') return true;
    i = std::max(end, i + 1);
  }
  return false;
}

bool is_url(string_view text) {
  const auto mark = text.find("://");
  return mark != string_view::npos && mark > 0 &&
         std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(mark), [](char c) {
           return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
         });
}

std::string mask_structure(string_view text) {
  return mask_assignments(mask_urls(text));
}

std::vector<std::string> secrets_in_url(string_view text) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  bool any = false;
  while (const auto url = next_url(text, from)) {
    any = true;
    const string_view credentials = cut(text, url->credentials);
    const auto colon = credentials.find(':');
    // NATS and Redis take a token in place of the user.
    const bool user_only = lower_case(cut(text, url->scheme)).starts_with("postgres");
    if (colon != string_view::npos || !user_only) {
      add_part(parts, colon == string_view::npos ? credentials : credentials.substr(colon + 1));
    }
    for (const Span& token : url->tokens) add_part(parts, cut(text, token));
    from = url->rest.end;
  }
  if (!any && !is_connection_string(text)) {
    // A URL without its scheme: user:password@host.
    if (const auto at = text.rfind('@'); at != string_view::npos) {
      const string_view credentials = text.substr(0, at);
      const auto colon = credentials.find(':');
      add_part(parts, colon == string_view::npos ? credentials : credentials.substr(colon + 1));
    }
  }
  if (!any) add_assigned(text, parts);
  return parts;
}

std::vector<std::string> paths_in_url(string_view text) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  while (const auto url = next_url(text, from)) {
    from = url->rest.end;
    if (!lower_case(cut(text, url->scheme)).starts_with("http")) continue;
    string_view rest = cut(text, url->rest);
    if (url->credentials.end > 0) rest.remove_prefix(url->credentials.end - url->rest.begin);
    rest.remove_prefix(std::min(rest.find_first_of("/?"), rest.size()));
    for (std::size_t at = 0; at < rest.size();) {
      const auto brace = std::min(rest.find('{', at), rest.size());
      if (brace - at > 1) parts.emplace_back(rest.substr(at, brace - at));
      at = std::min(rest.find('}', brace), rest.size());
      while (at < rest.size() && rest[at] == '}') ++at;
    }
  }
  return parts;
}

}  // namespace relay::secrets
