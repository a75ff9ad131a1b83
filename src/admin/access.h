#pragma once

#include <string_view>

#include "admin/http_server.h"

namespace relay::admin {

enum class Access {
  granted,
  closed,  ///< no token is configured: nothing can be changed here
  denied,  ///< no token was sent, or a wrong one
};

/// May this request change something? It must carry `Authorization: Bearer <admin_token>`. How long
/// the comparison takes tells nothing about the token.
Access access_of(const HttpRequest& request, std::string_view admin_token);

}  // namespace relay::admin
