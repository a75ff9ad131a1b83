#include "backends/webhook/receiver_options.h"

#include <fmt/core.h>

#include <algorithm>

#include "config/option_table.h"
#include "connector/field_mapping.h"
#include "http/server/listen_address.h"

namespace relay::webhook {

namespace {

using config::FieldType;
using config::fills;
using config::fills_choice;
using config::fills_with;
using config::Option;

/// The receiver's options, and what its authentication is made of.
struct ReceiverValues : ReceiverOptions {
  AuthOptions given_auth;
};

Result<std::string> path_of(std::string_view text) {
  std::string path(text);
  if (!path.starts_with('/') || path.find_first_of("?#% ") != std::string::npos) {
    return fail(misconfigured("bad_path", fmt::format("path: '{}' is no path", path),
                              "write it as /inbox, without a query"));
  }
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

constexpr Option<ReceiverValues> kOptions[] = {
    {{.name = "listen",
      .default_text = "127.0.0.1:8080",
      .meaning = "address and port that are listened on: 0.0.0.0:8080 for every address, "
                 "[::1]:8080 for IPv6"},
     fills<&ReceiverOptions::listen>},
    {{.name = "path",
      .default_text = "/inbox",
      .meaning = "requests to it, and to what lies below it, are taken"},
     fills_with<&path_of, &ReceiverOptions::path>},
    {{.name = "auth",
      .type = FieldType::choice,
      .default_text = "none",
      .meaning = "how a client shows that it may write: bearer (bearer_token), basic (user, "
                 "password), header (auth_header, auth_value), or by signature_secret: hmac "
                 "(Standard Webhooks), github, stripe, slack",
      .choices = "none,bearer,basic,header,hmac,github,stripe,slack"},
     fills_choice<kAuthKinds, &ReceiverValues::given_auth, &AuthOptions::kind>},
    {{.name = "bearer_token",
      .meaning = "token of the Authorization header; several, separated by spaces, while one "
                 "is being replaced",
      .secret = true,
      .aliases = "token"},
     fills<&ReceiverValues::given_auth, &AuthOptions::bearer_token>},
    {{.name = "user", .meaning = "user name of auth = basic"},
     fills<&ReceiverValues::given_auth, &AuthOptions::user>},
    {{.name = "password", .meaning = "password of user", .secret = true},
     fills<&ReceiverValues::given_auth, &AuthOptions::password>},
    {{.name = "auth_header",
      .default_text = "X-Api-Key",
      .meaning = "header that auth = header looks at"},
     fills<&ReceiverValues::given_auth, &AuthOptions::header>},
    {{.name = "auth_value",
      .meaning = "what auth_header must hold; several, separated by spaces, while one is being "
                 "replaced",
      .secret = true},
     fills<&ReceiverValues::given_auth, &AuthOptions::value>},
    {{.name = "signature_secret",
      .meaning = "of auth = hmac: whsec_ and base64, or any text; of github, stripe and slack: "
                 "the secret that they show; several, separated by spaces, while a secret is "
                 "being replaced",
      .secret = true,
      .aliases = "signature,signing_secret"},
     fills<&ReceiverValues::given_auth, &AuthOptions::signature_secret>},
    {{.name = "signature_tolerance",
      .type = FieldType::duration,
      .default_text = "5m",
      .meaning = "how far the time that is signed may be from now (github signs none)",
      .min = 1,
      .max = 86400},
     fills<&ReceiverValues::given_auth, &AuthOptions::tolerance>},
    {{.name = "max_body_bytes",
      .type = FieldType::bytes,
      .default_text = "10MiB",
      .meaning = "largest body; max_record_bytes of the pipeline bounds it too",
      .min = 1,
      .max = 1 << 30},
     fills<&ReceiverOptions::max_body_bytes>},
    {{.name = "max_header_bytes",
      .type = FieldType::bytes,
      .default_text = "16KiB",
      .meaning = "largest head of a request",
      .min = 256,
      .max = 1 << 20},
     fills<&ReceiverOptions::max_header_bytes>},
    {{.name = "max_connections",
      .type = FieldType::integer,
      .default_text = "1024",
      .meaning = "one more is answered with 503",
      .min = 1,
      .max = 100000},
     fills<&ReceiverOptions::max_connections>},
    {{.name = "max_waiting",
      .type = FieldType::integer,
      .default_text = "10000",
      .meaning = "requests that are not committed yet; one more is answered with 503",
      .min = 1},
     fills<&ReceiverOptions::max_waiting>},
    {{.name = "max_waiting_bytes",
      .type = FieldType::bytes,
      .default_text = "64MiB",
      .meaning = "their bytes together; what does not fit is answered with 503",
      .min = 1},
     fills<&ReceiverOptions::max_waiting_bytes>},
    {{.name = "idle_timeout",
      .type = FieldType::duration,
      .default_text = "60s",
      .meaning = "how long a connection may wait before its next request",
      .min = 0.1},
     fills<&ReceiverOptions::idle_timeout>},
    {{.name = "request_timeout",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "how long sending a request, and taking its answer, may last",
      .min = 0.1},
     fills<&ReceiverOptions::request_timeout>},
    {{.name = "response_timeout",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "a request that is not committed by then is answered with 503",
      .min = 0.1},
     fills<&ReceiverOptions::response_timeout>},
    {{.name = "tls_cert", .meaning = "file with the server's certificate chain (PEM): TLS"},
     fills<&ReceiverOptions::tls_cert>},
    {{.name = "tls_key",
      .meaning = "file with its private key (PEM)",
      .host = config::HostUse::secret_file},
     fills<&ReceiverOptions::tls_key>},
    {{.name = "tls_ca",
      .meaning = "file with authorities (PEM): clients must show a certificate of one of them"},
     fills<&ReceiverOptions::tls_ca>},
};
constexpr auto kFields = with_mapping_fields(kOptions);

/// Host and port, of what `listen` says.
Result<void> complete_address(ReceiverOptions& options) {
  const auto wrong = [&] {
    return fail(misconfigured("bad_listen",
                              fmt::format("listen: '{}' is no address with a port", options.listen),
                              "write it as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"));
  };
  const auto address = http::split_listen_address(options.listen);
  if (!address) return wrong();
  if (!address->bracketed && address->host.find(':') != std::string::npos) return wrong();
  const auto port = address->port_number();
  if (!port || *port == 0) return wrong();
  options.host = address->host;
  options.port = *port;
  return {};
}

Result<void> check_tls(const ReceiverOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty() ||
      (options.tls_cert.empty() && !options.tls_ca.empty())) {
    return fail(misconfigured("tls_files", "TLS needs both tls_cert and tls_key",
                              "give the certificate chain and its key"));
  }
  return {};
}

}  // namespace

config::FieldTable receiver_fields() {
  return kFields;
}

Result<ReceiverOptions> parse_receiver_options(const config::Values& values,
                                               std::int64_t max_record_bytes) {
  auto filled = config::filled<ReceiverValues>(kOptions, values);
  if (!filled) return fail(filled.error());
  ReceiverValues& options = *filled;
  if (auto done = complete_address(options); !done) return fail(done.error());
  if (auto checked = check_tls(options); !checked) return fail(checked.error());
  auto auth = ReceiverAuth::make(options.given_auth);
  if (!auth) return fail(auth.error());
  options.auth = std::move(*auth);
  options.max_body_bytes =
      std::min(options.max_body_bytes, static_cast<std::size_t>(max_record_bytes));
  // A single request of the largest size always fits.
  options.max_waiting_bytes =
      std::max(options.max_waiting_bytes, options.max_body_bytes + options.max_header_bytes);
  return ReceiverOptions(std::move(options));
}

}  // namespace relay::webhook
