#include "aws/token_service.h"

#include <fmt/core.h>

#include <utility>
#include <vector>

#include "aws/errors.h"
#include "core/percent.h"
#include "http/url.h"

namespace relay::aws {

namespace {

constexpr std::string_view kForm = "application/x-www-form-urlencoded; charset=utf-8";

struct Address {
  std::string url;
  std::string host;
  std::string region;
};

Result<Address> address_of(const RoleRequest& role, const Surroundings& around) {
  const std::string region = role.region.empty() ? "us-east-1" : role.region;
  std::string url = around.variable("AWS_ENDPOINT_URL_STS");
  if (url.empty()) {
    url = fmt::format("https://sts.{}.amazonaws.com{}", region,
                      region.starts_with("cn-") ? ".cn" : "");
  }
  const auto parsed = http::parse_url(url);
  if (!parsed) return fail(parsed.error().in_context("AWS_ENDPOINT_URL_STS"));
  return Address{parsed->origin() + "/", parsed->authority, region};
}

std::string form(const std::vector<std::pair<std::string_view, std::string>>& fields) {
  std::string body;
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    if (!body.empty()) body += '&';
    body += name;
    body += '=';
    append_percent_encoded(body, value);
  }
  return body;
}

std::string session_name(const RoleRequest& role) {
  return role.session_name.empty() ? "pgtrickle-relay" : role.session_name;
}

Result<Granted> ask(http::Request request, const Surroundings& around) {
  const auto response = around.fetch(std::move(request));
  if (!response) return fail(response.error());
  if (response->status != 200) {
    Error error = service_error("AWS token service", xml_text(response->body, "Code"),
                                xml_text(response->body, "Message"), response->status < 500);
    if (error.error_class == ErrorClass::rejected) error.error_class = ErrorClass::misconfigured;
    error.remedy = "look at the role, its trust policy, and the token or keys that assume it";
    return fail(std::move(error));
  }
  Granted granted{
      {xml_text(response->body, "AccessKeyId"), xml_text(response->body, "SecretAccessKey"),
       xml_text(response->body, "SessionToken")},
      parse_time(xml_text(response->body, "Expiration"))};
  if (granted.keys.access_key.empty() || granted.keys.secret_key.empty()) {
    return fail(ErrorClass::transient, "no_credentials",
                "AWS token service answered, but gave no credentials", "it is tried again");
  }
  return granted;
}

}  // namespace

std::string xml_text(std::string_view xml, std::string_view name) {
  const std::string open = fmt::format("<{}>", name);
  const auto begin = xml.find(open);
  if (begin == std::string_view::npos) return {};
  const auto end = xml.find(fmt::format("</{}>", name), begin);
  if (end == std::string_view::npos) return {};
  return std::string(xml.substr(begin + open.size(), end - begin - open.size()));
}

Result<Granted> assume_with_web_identity(const RoleRequest& role, const std::string& file,
                                         const Surroundings& around) {
  auto token = around.file(file);
  if (!token) {
    return fail(ErrorClass::misconfigured, "no_token_file",
                fmt::format("the web identity token file {} cannot be read", file),
                "look at AWS_WEB_IDENTITY_TOKEN_FILE, and let the relay read it");
  }
  while (!token->empty() && (token->back() == '\n' || token->back() == '\r')) token->pop_back();
  const auto address = address_of(role, around);
  if (!address) return fail(address.error());
  http::Request request;
  request.url = address->url;
  request.headers.add("Content-Type", kForm);
  request.owned_body = form({{"Action", "AssumeRoleWithWebIdentity"},
                             {"Version", "2011-06-15"},
                             {"RoleArn", role.role_arn},
                             {"RoleSessionName", session_name(role)},
                             {"WebIdentityToken", *token}});
  return ask(std::move(request), around);
}

Result<Granted> assume_role(const RoleRequest& role, const Credentials& keys,
                            const Surroundings& around) {
  const auto address = address_of(role, around);
  if (!address) return fail(address.error());
  http::Request request;
  request.url = address->url;
  request.owned_body = form({{"Action", "AssumeRole"},
                             {"Version", "2011-06-15"},
                             {"RoleArn", role.role_arn},
                             {"RoleSessionName", session_name(role)},
                             {"ExternalId", role.external_id}});
  const std::string date = amz_date(around.now());
  Signable signable;
  signable.headers = {
      {"content-type", std::string(kForm)}, {"host", address->host}, {"x-amz-date", date}};
  if (!keys.session_token.empty()) {
    signable.headers.emplace_back("x-amz-security-token", keys.session_token);
    request.headers.add("X-Amz-Security-Token", keys.session_token);
  }
  signable.body = request.owned_body;
  request.headers.add("Content-Type", kForm);
  request.headers.add("X-Amz-Date", date);
  request.headers.add("Authorization", authorization(keys, address->region, "sts", signable, date));
  return ask(std::move(request), around);
}

}  // namespace relay::aws
