#include "http/proxy.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "core/secrets.h"
#include "core/text.h"

namespace relay::http {

namespace {

constexpr std::string_view kNone = "none";
constexpr std::array kVariables = {"https_proxy", "HTTPS_PROXY", "http_proxy"};

tl::unexpected<Error> bad_proxy(std::string_view from, std::string_view what) {
  return fail(
      ErrorClass::misconfigured, "bad_proxy", fmt::format("{}: {}", from, what),
      "write it as http://host:port, or http://user:password@host:port with %XX for / ? # @ "
      "and : in user and password");
}

/// The bytes of an address, 4 or 16; empty: it is none.
std::string address_bytes(std::string_view text) {
  const std::string copy(text);
  std::array<char, 16> bytes{};
  if (::inet_pton(AF_INET, copy.c_str(), bytes.data()) == 1) return {bytes.data(), 4};
  if (::inet_pton(AF_INET6, copy.c_str(), bytes.data()) == 1) return {bytes.data(), 16};
  return {};
}

bool is_in_block(std::string_view address, std::string_view entry) {
  const auto slash = std::min(entry.find('/'), entry.size());
  const std::string block = address_bytes(entry.substr(0, slash));
  if (block.empty() || block.size() != address.size()) return false;
  std::size_t bits = 8 * block.size();
  if (slash < entry.size()) {
    const std::string_view text = entry.substr(slash + 1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bits);
    if (error != std::errc() || end != text.data() + text.size() || bits > 8 * block.size()) {
      return false;
    }
  }
  for (std::size_t bit = 0; bit < bits; ++bit) {
    if ((block[bit / 8] ^ address[bit / 8]) & (0x80 >> (bit % 8))) return false;
  }
  return true;
}

bool is_name_or_below(std::string_view host, std::string_view entry) {
  if (entry.starts_with('.')) entry.remove_prefix(1);
  if (entry.ends_with('.')) entry.remove_suffix(1);
  if (entry.empty() || host.size() < entry.size()) return false;
  const auto before = host.size() - entry.size();
  return equal_ignoring_case(host.substr(before), entry) &&
         (before == 0 || host[before - 1] == '.');
}

/// The first of these that is set, with its name.
std::pair<std::string, std::string> first_set(std::initializer_list<const char*> names,
                                              const Variable& variable) {
  for (const char* name : names) {
    if (std::string value = variable(name); !value.empty()) return {std::move(value), name};
  }
  return {};
}

}  // namespace

Result<Proxy> parse_proxy(std::string_view text, std::string_view from) {
  const bool has_scheme = text.find("://") != std::string_view::npos;
  const auto url = parse_url(has_scheme ? std::string(text) : fmt::format("http://{}", text));
  if (!url) {
    return bad_proxy(from, "it is no address of an HTTP proxy; SOCKS is not supported");
  }
  if (!url->rest.empty() && url->rest != "/") return bad_proxy(from, "a path follows the address");
  const auto behind = url->authority.rfind(']');
  if (url->authority.find(':', behind == std::string::npos ? 0 : behind) == std::string::npos) {
    return bad_proxy(from, "it names no port, and programs disagree about the usual one");
  }
  if (url->origin().find_first_of("{} ") != std::string::npos) {
    return bad_proxy(from, "it is no template");
  }
  return Proxy{url->origin(), url->user, url->password, std::string(from)};
}

Result<std::string> proxy_option(std::string_view text) {
  if (text != kNone) {
    if (auto proxy = parse_proxy(text, "proxy"); !proxy) return fail(proxy.error());
  }
  return std::string(text);
}

bool is_in_no_proxy(std::string_view host, std::string_view list) {
  if (trimmed(list) == "*") return true;
  if (host.ends_with('.')) host.remove_suffix(1);
  const std::string address = address_bytes(host);
  while (!list.empty()) {
    const auto end = std::min(list.find_first_of(", \t"), list.size());
    std::string_view entry = list.substr(0, end);
    list.remove_prefix(std::min(end + 1, list.size()));
    if (entry.starts_with('[') && entry.ends_with(']')) entry = entry.substr(1, entry.size() - 2);
    if (address.empty() ? is_name_or_below(host, entry) : is_in_block(address, entry)) return true;
  }
  return false;
}

std::string environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Result<std::optional<Proxy>> find_proxy(const Url& url, std::string_view option,
                                        const Variable& variable) {
  if (option == kNone) return std::optional<Proxy>();
  std::pair<std::string, std::string> found{option, "proxy"};
  if (option.empty()) {
    // HTTP_PROXY is what a CGI program is given for a header "Proxy" of its client.
    found = url.scheme == "https" ? first_set({"https_proxy", "HTTPS_PROXY"}, variable)
                                  : first_set({"http_proxy"}, variable);
  }
  if (found.first.empty()) return std::optional<Proxy>();
  if (is_in_no_proxy(url.host, first_set({"no_proxy", "NO_PROXY"}, variable).first)) {
    return std::optional<Proxy>();
  }
  auto proxy = parse_proxy(found.first, found.second);
  if (!proxy) return fail(proxy.error());
  return std::optional<Proxy>(std::move(*proxy));
}

bool may_find_proxy(std::string_view option, const Variable& variable) {
  if (!option.empty()) return option != kNone;
  return std::ranges::any_of(kVariables, [&](const char* name) { return !variable(name).empty(); });
}

void remember_proxy_passwords(std::string_view option, const Variable& variable) {
  const auto remember = [](std::string_view text, std::string_view name) {
    const auto proxy = parse_proxy(text, "proxy");
    if (proxy) secrets::remember(proxy->password, name);
  };
  remember(option, {});
  for (const char* name : kVariables) {
    remember(variable(name), fmt::format("${{env:{}}}", name));
  }
}

}  // namespace relay::http
