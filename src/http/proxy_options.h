#pragma once

#include "config/option_table.h"
#include "http/client.h"
#include "http/proxy.h"

namespace relay::http {

/// The options that every backend with this client has.
inline constexpr config::Option<ClientOptions> kProxyOptions[] = {
    {{.name = "proxy",
      .meaning = "HTTP proxy for requests: http://user:password@host:port, or none; the default is "
                 "what HTTPS_PROXY, http_proxy and NO_PROXY say",
      .secret = true},
     config::fills_with<&proxy_option, &ClientOptions::proxy>},
};

}  // namespace relay::http
