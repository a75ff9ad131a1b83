#include "aws/credentials.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>

#include "aws/errors.h"
#include "aws/token_service.h"
#include "core/text.h"
#include "http/proxy.h"
#include "http/url.h"

namespace relay::aws {

namespace {

using Clock = std::chrono::system_clock;
using Found = Result<std::optional<Granted>>;  // nothing: this place has none

constexpr auto kRenewBefore = std::chrono::minutes(5);
constexpr std::chrono::milliseconds kMetadataTimeout{1000};
constexpr std::string_view kContainerHost = "http://169.254.170.2";
constexpr std::string_view kInstanceHost = "http://169.254.169.254";

std::string variable_or(const Surroundings& around, const char* name, std::string other) {
  const std::string value = around.variable(name);
  return value.empty() ? other : value;
}

std::string profile_name(const Identity& options, const Surroundings& around) {
  if (!options.profile.empty()) return options.profile;
  return variable_or(around, "AWS_PROFILE", "default");
}

/// The shared files' profiles; what the credentials file says goes before the configuration file.
Sections read_profiles(const Surroundings& around) {
  const std::string home = around.variable("HOME");
  const auto config = around.file(variable_or(around, "AWS_CONFIG_FILE", home + "/.aws/config"));
  const auto shared =
      around.file(variable_or(around, "AWS_SHARED_CREDENTIALS_FILE", home + "/.aws/credentials"));
  Sections sections = config ? parse_ini(*config) : Sections();
  if (!shared) return sections;
  for (auto& [name, keys] : parse_ini(*shared)) {
    for (const auto& [key, value] : keys) sections[name][key] = value;
  }
  return sections;
}

std::string value_of(const std::map<std::string, std::string>& section, const std::string& key) {
  const auto found = section.find(key);
  return found == section.end() ? std::string() : found->second;
}

Found from_environment(const Surroundings& around) {
  Credentials keys{around.variable("AWS_ACCESS_KEY_ID"), around.variable("AWS_SECRET_ACCESS_KEY"),
                   around.variable("AWS_SESSION_TOKEN")};
  if (keys.access_key.empty() || keys.secret_key.empty()) return std::optional<Granted>();
  return std::optional<Granted>(Granted{std::move(keys), {}});
}

class Profiles {
 public:
  Profiles(const Identity& options, const Surroundings& around)
      : options_(options), around_(around), sections_(read_profiles(around)) {}

  Found find(const std::string& name, int depth = 0) const {
    const auto section = sections_.find(name);
    if (section == sections_.end()) {
      if (options_.profile.empty() && around_.variable("AWS_PROFILE").empty() && depth == 0) {
        return std::optional<Granted>();
      }
      return fail(ErrorClass::misconfigured, "no_profile",
                  fmt::format("there is no AWS profile '{}'", name),
                  "look at profile, AWS_PROFILE and the files in ~/.aws");
    }
    const auto& keys = section->second;
    if (depth < 4 && !value_of(keys, "role_arn").empty()) return with_role(name, keys, depth);
    Credentials found{value_of(keys, "aws_access_key_id"), value_of(keys, "aws_secret_access_key"),
                      value_of(keys, "aws_session_token")};
    if (!found.access_key.empty() && !found.secret_key.empty()) {
      return std::optional<Granted>(Granted{std::move(found), {}});
    }
    for (const char* other : {"credential_process", "sso_start_url", "sso_session"}) {
      if (value_of(keys, other).empty()) continue;
      return fail(ErrorClass::misconfigured, "unsupported_profile",
                  fmt::format("AWS profile '{}' uses {}, which is not supported", name, other),
                  "give a profile with keys or a role, or set AWS_ACCESS_KEY_ID");
    }
    return std::optional<Granted>();
  }

 private:
  Found with_role(const std::string& name, const std::map<std::string, std::string>& keys,
                  int depth) const {
    const RoleRequest role{value_of(keys, "role_arn"), value_of(keys, "role_session_name"),
                           value_of(keys, "external_id"), options_.region};
    if (const auto file = value_of(keys, "web_identity_token_file"); !file.empty()) {
      auto granted = assume_with_web_identity(role, file, around_);
      if (!granted) return fail(granted.error());
      return std::optional<Granted>(std::move(*granted));
    }
    const std::string source = value_of(keys, "source_profile");
    const std::string other = value_of(keys, "credential_source");
    Found base = source.empty() ? Found(std::optional<Granted>()) : base_of(name, source, depth);
    if (source.empty() && other == "Environment") base = from_environment(around_);
    if (!base) return base;
    if (!*base) {
      return fail(ErrorClass::misconfigured, "no_source_profile",
                  fmt::format("AWS profile '{}' has a role, but nothing to assume it with", name),
                  "set source_profile, or web_identity_token_file");
    }
    auto granted = assume_role(role, (*base)->keys, around_);
    if (!granted) return fail(granted.error());
    return std::optional<Granted>(std::move(*granted));
  }

  /// A profile may name itself: then its own keys assume its role.
  Found base_of(const std::string& name, const std::string& source, int depth) const {
    return find(source, source == name ? 4 : depth + 1);
  }

  const Identity& options_;
  const Surroundings& around_;
  const Sections sections_;
};

Found from_web_identity(const Identity& options, const Surroundings& around) {
  const std::string file = around.variable("AWS_WEB_IDENTITY_TOKEN_FILE");
  const std::string role = around.variable("AWS_ROLE_ARN");
  if (file.empty() || role.empty()) return std::optional<Granted>();
  auto granted = assume_with_web_identity(
      {role, around.variable("AWS_ROLE_SESSION_NAME"), {}, options.region}, file, around);
  if (!granted) return fail(granted.error());
  return std::optional<Granted>(std::move(*granted));
}

http::Request get(std::string url) {
  http::Request request;
  request.method = "GET";
  request.url = std::move(url);
  request.timeout = kMetadataTimeout;
  request.direct = true;  // a proxy has a metadata service of its own
  return request;
}

/// {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}, as container and instance answer.
Result<Granted> parse_granted(std::string_view body, std::string_view where) {
  simdjson::dom::parser parser;
  const auto parsed = parser.parse(body.data(), body.size());
  const auto text = [&](const char* name) {
    std::string_view value;
    return parsed.error() || parsed[name].get(value) ? std::string() : std::string(value);
  };
  Granted granted{{text("AccessKeyId"), text("SecretAccessKey"), text("Token")},
                  parse_time(text("Expiration"))};
  if (granted.keys.access_key.empty() || granted.keys.secret_key.empty()) {
    return fail(ErrorClass::transient, "no_credentials",
                fmt::format("{} answered, but gave no credentials", where),
                "look at the role that is attached");
  }
  return granted;
}

Result<std::string> container_token(const Surroundings& around) {
  const std::string file = around.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  if (file.empty()) return around.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  const auto text = around.file(file);
  if (!text) {
    return fail(ErrorClass::misconfigured, "no_token_file",
                fmt::format("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {} cannot be read", file),
                "let the relay read it");
  }
  return std::string(trimmed(*text));
}

Found from_container(const Surroundings& around) {
  const std::string relative = around.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  std::string url = around.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (!relative.empty()) url = std::string(kContainerHost) + relative;
  if (url.empty()) return std::optional<Granted>();
  const auto parsed = http::parse_url(url);
  static const auto kLocal = {"127.0.0.1",     "localhost",      "::1",
                              "169.254.170.2", "169.254.170.23", "fd00:ec2::23"};
  const bool local =
      parsed && std::find(kLocal.begin(), kLocal.end(), parsed->host) != kLocal.end();
  if (!parsed || (parsed->scheme != "https" && !local)) {
    return fail(ErrorClass::misconfigured, "bad_container_url",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI leads neither to this machine nor to "
                "an https address",
                "look at that variable");
  }
  auto token = container_token(around);
  if (!token) return fail(token.error());
  http::Request request = get(std::move(url));
  if (!token->empty() && http::is_header_value(*token)) {
    request.headers.add("Authorization", *token);
  }
  const auto response = around.fetch(std::move(request));
  if (!response) return fail(response.error());
  auto granted = parse_granted(response->body, "the container's credential service");
  if (!granted) return fail(granted.error());
  return std::optional<Granted>(std::move(*granted));
}

Found from_instance(const Surroundings& around) {
  if (around.variable("AWS_EC2_METADATA_DISABLED") == "true") return std::optional<Granted>();
  std::string host =
      variable_or(around, "AWS_EC2_METADATA_SERVICE_ENDPOINT", std::string(kInstanceHost));
  while (host.ends_with('/')) host.pop_back();
  http::Request ask = get(host + "/latest/api/token");
  ask.method = "PUT";
  ask.headers.add("X-aws-ec2-metadata-token-ttl-seconds", "21600");
  const auto token = around.fetch(std::move(ask));
  if (!token && !around.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").empty()) {
    return fail(token.error().in_context("AWS_EC2_METADATA_SERVICE_ENDPOINT"));
  }
  if (token && token->status >= 500) {
    return fail(ErrorClass::transient, "no_credentials",
                fmt::format("the instance's metadata service answered {}", token->status),
                "it is tried again");
  }
  // No answer: this is no instance.
  if (!token || token->status != 200 || !http::is_header_value(token->body)) {
    return std::optional<Granted>();
  }
  const auto fetch = [&](const std::string& path) {
    http::Request request = get(host + "/latest/meta-data/iam/security-credentials/" + path);
    request.headers.add("X-aws-ec2-metadata-token", token->body);
    return around.fetch(std::move(request));
  };
  const auto roles = fetch("");
  if (!roles) return fail(roles.error());
  if (roles->status == 404) return std::optional<Granted>();
  const std::string_view role =
      trimmed(std::string_view(roles->body).substr(0, roles->body.find('\n')));
  const auto answer = fetch(std::string(role));
  if (!answer) return fail(answer.error());
  auto granted = parse_granted(answer->body, "the instance's metadata service");
  if (!granted) return fail(granted.error());
  return std::optional<Granted>(std::move(*granted));
}

}  // namespace

Surroundings process_surroundings(std::string tls_ca, std::string proxy, Deadline deadline,
                                  std::stop_token stop) {
  Surroundings around;
  // Made only where a service has to be asked.
  const auto asking = std::make_shared<std::unique_ptr<http::Client>>();
  around.fetch = [=](http::Request request) {
    if (!*asking) {
      http::ClientOptions client;
      client.max_connections = 1;
      client.connect_timeout = kMetadataTimeout;
      client.tls_ca = tls_ca;
      client.proxy = proxy;
      *asking = std::make_unique<http::Client>(std::move(client));
    }
    return (*asking)->fetch(std::move(request), deadline, stop);
  };
  around.variable = &http::environment_variable;
  around.file = [](const std::string& path) -> std::optional<std::string> {
    std::ifstream in(path, std::ios::binary);
    if (!in) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  around.now = [] { return Clock::now(); };
  return around;
}

Sections parse_ini(std::string_view text) {
  Sections sections;
  std::string section;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const bool nested = raw.starts_with(' ') || raw.starts_with('\t');
    std::string_view line = trimmed(raw);
    if (line.empty() || line.front() == '#' || line.front() == ';' || nested) continue;
    if (line.front() == '[') {
      std::string_view name = trimmed(line.substr(1, line.find(']') - 1));
      if (name.starts_with("profile ")) name = trimmed(name.substr(8));
      section = name;
      sections.try_emplace(section);
      continue;
    }
    const auto equals = line.find('=');
    if (equals == std::string_view::npos || section.empty()) continue;
    sections[section][std::string(trimmed(line.substr(0, equals)))] =
        trimmed(line.substr(equals + 1));
  }
  return sections;
}

std::optional<Clock::time_point> parse_time(std::string_view text) {
  std::tm parts{};
  const std::string copy(text);
  const char* end = ::strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (end == nullptr) return std::nullopt;
  // The clock counts nanoseconds: it holds no year before 1678 or after 2261.
  const std::time_t first = Clock::to_time_t(Clock::time_point::min()) + 1;
  const std::time_t last = Clock::to_time_t(Clock::time_point::max()) - 1;
  return Clock::from_time_t(std::clamp(::timegm(&parts), first, last));
}

std::string find_region(const Identity& options, const Surroundings& around) {
  for (const char* name : {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
    if (std::string region = around.variable(name); !region.empty()) return region;
  }
  const Sections sections = read_profiles(around);
  const auto profile = sections.find(profile_name(options, around));
  return profile == sections.end() ? std::string() : value_of(profile->second, "region");
}

Result<Granted> find_credentials(const Identity& options, const Surroundings& around) {
  if (!options.keys.access_key.empty()) return Granted{options.keys, {}};
  // A profile that is asked for by name is meant.
  if (options.profile.empty()) {
    if (auto found = from_environment(around); *found) return std::move(**found);
  }
  const std::array<std::function<Found()>, 4> places = {
      [&] { return Profiles(options, around).find(profile_name(options, around)); },
      [&] { return from_web_identity(options, around); },
      [&] { return from_container(around); },
      [&] { return from_instance(around); },
  };
  for (const auto& place : places) {
    auto found = place();
    if (!found) return fail(found.error());
    if (*found) return std::move(**found);
  }
  return fail(ErrorClass::misconfigured, "no_credentials", "there are no AWS credentials",
              "set access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and "
              "AWS_SECRET_ACCESS_KEY, a profile, or attach a role");
}

Result<Credentials> Keys::get(const Surroundings& around) {
  const auto now = around.now();
  const bool fresh = granted_ && (!granted_->expires || *granted_->expires > now + kRenewBefore);
  if (!fresh) {
    auto found = find_credentials(options_, around);
    if (found) {
      granted_ = std::move(*found);
    } else if (!granted_ || *granted_->expires <= now) {
      return fail(found.error());
    }
  }
  return granted_->keys;
}

}  // namespace relay::aws
