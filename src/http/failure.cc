#include "http/failure.h"

#include <curl/curl.h>
#include <fmt/core.h>

#include <string_view>
#include <utility>

#include "core/tls_remedy.h"

namespace relay::http {

namespace {

std::string through(const Failure& failure) {
  return failure.proxy.empty() ? std::string()
                               : fmt::format(" through the proxy {}", failure.proxy);
}

Error error(ErrorClass error_class, std::string_view code, std::string message,
            std::string remedy) {
  return {error_class, std::string(code), std::move(message), std::move(remedy), {}};
}

/// What the proxy answered instead of making the connection.
Error refused_by_proxy(const Failure& failure) {
  const int status = failure.proxy_status;
  if (status == 407) {
    return misconfigured(
        "proxy_credentials",
        fmt::format("the proxy {} does not accept the credentials for it (407)", failure.proxy),
        fmt::format("look at user and password in {}: http://user:password@host:port; only basic "
                    "authentication is supported",
                    failure.proxy_from));
  }
  const std::string asked = failure.tunnelled_to.empty()
                                ? std::string()
                                : fmt::format(", asked for its address {}", failure.tunnelled_to);
  const std::string message = fmt::format("the proxy {} answered {} instead of connecting to {}{}",
                                          failure.proxy, status, failure.origin, asked);
  if (status >= 500 || status == 408 || status == 429) {
    return error(ErrorClass::transient, "proxy_failed", message,
                 "it is tried again; if this stays, look at the proxy's log, and whether the proxy "
                 "reaches the server");
  }
  return misconfigured(
      "proxy_refused", message,
      failure.tunnelled_to.empty()
          ? "let the proxy's operator allow CONNECT to that host and port, or name another proxy"
          : "let the proxy's operator allow CONNECT to that address and port, or set "
            "allow_private = true: then the proxy is asked for the name, and the address is not "
            "checked");
}

Error of_proxy(const Failure& failure) {
  const std::string remedy = fmt::format(
      "check host and port in {}, that the proxy runs, and that this machine reaches it",
      failure.proxy_from);
  if (failure.code == CURLE_COULDNT_RESOLVE_PROXY) {
    return error(ErrorClass::transient, kUnreachable,
                 fmt::format("the proxy {} cannot be reached: no such name", failure.proxy),
                 remedy);
  }
  return error(ErrorClass::transient, kUnreachable,
               fmt::format("the proxy {} cannot be reached: {}", failure.proxy, failure.detail),
               remedy);
}

Error not_trusted(const Failure& failure) {
  return misconfigured(
      "certificate",
      fmt::format("{} shows a certificate that is not trusted: {}",
                  failure.proxy_not_trusted ? "the proxy " + failure.proxy : failure.origin,
                  failure.detail),
      tls_remedy(failure.detail, "set tls_ca to the file with the authority that signed it"));
}

}  // namespace

Error private_address(const std::string& origin, const std::string& address) {
  return misconfigured("private_address",
                       fmt::format("{} is at {}, which is not a public address", origin, address),
                       "set allow_private = true where requests into the own network are meant");
}

Error unresolvable(const std::string& origin, const std::string& proxy) {
  return error(ErrorClass::transient, "unresolvable",
               fmt::format("{} cannot be reached: no such name", origin),
               proxy.empty()
                   ? "check the host in the url, and this machine's name resolution"
                   : fmt::format("check the host in the url, and this machine's name resolution; "
                                 "with allow_private = true the proxy {} resolves the name, and "
                                 "the address is not checked",
                                 proxy));
}

Error error_of(const Failure& failure) {
  const std::string& origin = failure.origin;
  if (!failure.proxy.empty()) {
    if (failure.proxy_status >= 300) return refused_by_proxy(failure);
    if (failure.code == CURLE_COULDNT_CONNECT || failure.code == CURLE_COULDNT_RESOLVE_PROXY) {
      return of_proxy(failure);
    }
  }
  switch (failure.code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return not_trusted(failure);
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return misconfigured("certificate_file",
                           fmt::format("{} cannot be reached with these certificate files: {}",
                                       origin, failure.detail),
                           "look at tls_ca, tls_cert and tls_key");
    case CURLE_COULDNT_RESOLVE_HOST:
      return unresolvable(origin, {});
    case CURLE_OPERATION_TIMEDOUT:
      return error(ErrorClass::transient, "timeout",
                   fmt::format("{} did not answer within {} ms{}", origin, failure.timeout.count(),
                               through(failure)),
                   failure.proxy.empty()
                       ? "if this stays, look at the server, or raise timeout"
                       : "if this stays, look at the proxy and the server, or raise timeout");
    case CURLE_WRITE_ERROR:
      return error(ErrorClass::transient, "response_too_large",
                   origin + " answered with more headers than are taken", "look at the server");
    case CURLE_COULDNT_CONNECT:
      if (!failure.refused_address.empty()) {
        return private_address(origin, failure.refused_address);
      }
      return error(ErrorClass::transient, kUnreachable,
                   fmt::format("{} cannot be reached: {}", origin, failure.detail),
                   "check host and port in the url, that the server runs, and that this machine "
                   "reaches it");
    default:
      return error(ErrorClass::transient, "connection",
                   fmt::format("{} gave no answer{}: {}", origin, through(failure), failure.detail),
                   "it is tried again");
  }
}

}  // namespace relay::http
