#include "admin/access.h"

#include "core/digest.h"
#include "core/text.h"

namespace relay::admin {

namespace {

constexpr std::string_view kScheme = "bearer ";

/// What follows `Bearer `, or nothing.
std::string_view bearer_token(std::string_view header) {
  const bool is_bearer = header.size() > kScheme.size() &&
                         equal_ignoring_case(header.substr(0, kScheme.size()), kScheme);
  return is_bearer ? header.substr(kScheme.size()) : std::string_view();
}

}  // namespace

Access access_of(const HttpRequest& request, std::string_view admin_token) {
  if (admin_token.empty()) return Access::closed;
  const auto header = request.headers.find("authorization");
  if (header == request.headers.end()) return Access::denied;
  return same_secret(bearer_token(header->second), admin_token) ? Access::granted : Access::denied;
}

}  // namespace relay::admin
