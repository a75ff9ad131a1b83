#include "aws/sigv4.h"

#include <fmt/chrono.h>
#include <algorithm>

#include "core/digest.h"
#include "core/percent.h"

namespace relay::aws {

namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

std::string hash(std::string_view text) {
  return hex(bytes_of(sha256(text)));
}

// Without spaces at the ends, and with one for several in between.
std::string folded(std::string_view value) {
  std::string out;
  for (const char c : value) {
    const bool space = c == ' ' || c == '\t';
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (out.ends_with(' ')) out.pop_back();
  return out;
}

std::vector<std::pair<std::string, std::string>> sorted_headers(const Signable& request) {
  auto headers = request.headers;
  std::stable_sort(headers.begin(), headers.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  return headers;
}

std::string signed_names(const Signable& request) {
  std::string names;
  for (const auto& [name, value] : sorted_headers(request)) {
    if (!names.empty()) names += ';';
    names += name;
  }
  return names;
}

std::string scope_of(std::string_view region, std::string_view service, std::string_view amz_date) {
  return fmt::format("{}/{}/{}/aws4_request", amz_date.substr(0, 8), region, service);
}

std::string signature(const Credentials& credentials, std::string_view region,
                      std::string_view service, const Signable& request,
                      std::string_view amz_date) {
  const std::string to_sign =
      fmt::format("{}\n{}\n{}\n{}", kAlgorithm, amz_date, scope_of(region, service, amz_date),
                  hash(canonical_request(request)));
  auto key = hmac_sha256("AWS4" + credentials.secret_key, amz_date.substr(0, 8));
  for (const std::string_view step : {region, service, std::string_view("aws4_request")}) {
    key = hmac_sha256(bytes_of(key), step);
  }
  return hex(bytes_of(hmac_sha256(bytes_of(key), to_sign)));
}

}  // namespace

std::string canonical_request(const Signable& request) {
  std::string headers;
  for (const auto& [name, value] : sorted_headers(request)) {
    headers += fmt::format("{}:{}\n", name, folded(value));
  }
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.path, request.query, headers,
                     signed_names(request), hash(request.body));
}

std::string authorization(const Credentials& credentials, std::string_view region,
                          std::string_view service, const Signable& request,
                          std::string_view amz_date) {
  const std::string scope = scope_of(region, service, amz_date);
  return fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithm,
                     credentials.access_key, scope, signed_names(request),
                     signature(credentials, region, service, request, amz_date));
}

std::string presigned_url(const Credentials& credentials, std::string_view region,
                          std::string_view service, std::string_view host, std::string_view query,
                          int seconds, std::string_view amz_date) {
  Signable request;
  request.method = "GET";
  request.headers = {{"host", std::string(host)}};
  request.query = fmt::format("{}&X-Amz-Algorithm={}&X-Amz-Credential=", query, kAlgorithm);
  append_percent_encoded(request.query,
                         credentials.access_key + "/" + scope_of(region, service, amz_date));
  request.query += fmt::format("&X-Amz-Date={}&X-Amz-Expires={}", amz_date, seconds);
  if (!credentials.session_token.empty()) {
    request.query += "&X-Amz-Security-Token=";
    append_percent_encoded(request.query, credentials.session_token);
  }
  request.query += "&X-Amz-SignedHeaders=host";
  return fmt::format("https://{}{}?{}&X-Amz-Signature={}", host, request.path, request.query,
                     signature(credentials, region, service, request, amz_date));
}

std::string amz_date(std::chrono::system_clock::time_point at) {
  return fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(at)));
}

}  // namespace relay::aws
