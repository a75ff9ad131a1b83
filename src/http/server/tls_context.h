#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "core/error.h"
#include "http/server/tls.h"

/// For the .cc files of this room alone.
namespace relay::http {

/// Null where `files` ask for no TLS. Misconfigured: a file cannot be used; the error names its
/// option: tls_cert, tls_key or tls_ca.
Result<std::unique_ptr<boost::asio::ssl::context>> make_tls(const TlsFiles& files);

}  // namespace relay::http
