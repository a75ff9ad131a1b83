#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace relay::aws {

/// Who asks. Never shown.
struct Credentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  ///< empty: long-lived keys
};

/// What of a request is signed. Header names in lower case; `host` among them. Path and query must
/// be in canonical form already: the requests of this room need no other.
struct Signable {
  std::string method = "POST";
  std::string path = "/";
  std::string query;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string_view body;
};

/// The value of the Authorization header of AWS Signature Version 4. The request must carry
/// `x-amz-date` as `amz_date` has it, among the headers.
/// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
std::string authorization(const Credentials& credentials, std::string_view region,
                          std::string_view service, const Signable& request,
                          std::string_view amz_date);

/// A request that needs no header of ours: its query carries the signature, which is good for
/// `seconds` from `amz_date` on. `query` must be in canonical form and sort before "X-Amz-".
std::string presigned_url(const Credentials& credentials, std::string_view region,
                          std::string_view service, std::string_view host, std::string_view query,
                          int seconds, std::string_view amz_date);

/// "20150830T123600Z".
std::string amz_date(std::chrono::system_clock::time_point at);

/// The hash that `authorization` signs, as text: for tests and for finding out what differs.
std::string canonical_request(const Signable& request);

}  // namespace relay::aws
