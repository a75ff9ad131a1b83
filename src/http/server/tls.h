#pragma once

#include <string>

namespace relay::http {

/// The PEM files of a server that speaks TLS 1.2 and 1.3.
struct TlsFiles {
  std::string cert;  ///< certificate chain; empty: no TLS
  std::string key;
  std::string ca;  ///< not empty: a client shows a certificate of one of these authorities
};

}  // namespace relay::http
