#include "backends/webhook/receiver_options.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "connector/field_mapping.h"
#include "http/server/listen_address.h"

namespace relay::webhook {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kOwnFields = {
    Field{.name = "listen",
          .default_text = "127.0.0.1:8080",
          .meaning = "address and port that are listened on: 0.0.0.0:8080 for every address, "
                     "[::1]:8080 for IPv6"},
    Field{.name = "path",
          .default_text = "/inbox",
          .meaning = "requests to it, and to what lies below it, are taken"},
    Field{.name = "auth",
          .type = FieldType::choice,
          .default_text = "none",
          .meaning = "how a client shows that it may write: bearer (bearer_token), basic (user, "
                     "password), header (auth_header, auth_value), or hmac (signature_secret: "
                     "Standard Webhooks)",
          .choices = "none,bearer,basic,header,hmac"},
    Field{.name = "bearer_token",
          .meaning = "token of the Authorization header; several, separated by spaces, while one "
                     "is being replaced",
          .secret = true,
          .aliases = "token"},
    Field{.name = "user", .meaning = "user name of auth = basic"},
    Field{.name = "password", .meaning = "password of user", .secret = true},
    Field{.name = "auth_header",
          .default_text = "X-Api-Key",
          .meaning = "header that auth = header looks at"},
    Field{.name = "auth_value",
          .meaning = "what auth_header must hold; several, separated by spaces, while one is being "
                     "replaced",
          .secret = true},
    Field{.name = "signature_secret",
          .meaning = "of auth = hmac: whsec_ and base64, or any text; several, separated by "
                     "spaces, while a secret is being replaced",
          .secret = true,
          .aliases = "signature,signing_secret"},
    Field{.name = "signature_tolerance",
          .type = FieldType::duration,
          .default_text = "5m",
          .meaning = "how far webhook-timestamp may be from now",
          .min = 1,
          .max = 86400},
    Field{.name = "max_body_bytes",
          .type = FieldType::bytes,
          .default_text = "10MiB",
          .meaning = "largest body; max_record_bytes of the pipeline bounds it too",
          .min = 1,
          .max = 1 << 30},
    Field{.name = "max_header_bytes",
          .type = FieldType::bytes,
          .default_text = "16KiB",
          .meaning = "largest head of a request",
          .min = 256,
          .max = 1 << 20},
    Field{.name = "max_connections",
          .type = FieldType::integer,
          .default_text = "1024",
          .meaning = "one more is answered with 503",
          .min = 1,
          .max = 100000},
    Field{.name = "max_waiting",
          .type = FieldType::integer,
          .default_text = "10000",
          .meaning = "requests that are not committed yet; one more is answered with 503",
          .min = 1},
    Field{.name = "max_waiting_bytes",
          .type = FieldType::bytes,
          .default_text = "64MiB",
          .meaning = "their bytes together; what does not fit is answered with 503",
          .min = 1},
    Field{.name = "idle_timeout",
          .type = FieldType::duration,
          .default_text = "60s",
          .meaning = "how long a connection may wait before its next request",
          .min = 0.1},
    Field{.name = "request_timeout",
          .type = FieldType::duration,
          .default_text = "30s",
          .meaning = "how long sending a request, and taking its answer, may last",
          .min = 0.1},
    Field{.name = "response_timeout",
          .type = FieldType::duration,
          .default_text = "30s",
          .meaning = "a request that is not committed by then is answered with 503",
          .min = 0.1},
    Field{.name = "tls_cert", .meaning = "file with the server's certificate chain (PEM): TLS"},
    Field{.name = "tls_key",
          .meaning = "file with its private key (PEM)",
          .host = config::HostUse::secret_file},
    Field{.name = "tls_ca",
          .meaning = "file with authorities (PEM): clients must show a certificate of one of them"},
};
constexpr auto kFields = with_mapping_fields(kOwnFields);

Result<void> read_listen(const std::string& text, ReceiverOptions& options) {
  const auto wrong = [&] {
    return fail(misconfigured("bad_listen",
                              fmt::format("listen: '{}' is no address with a port", text),
                              "write it as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"));
  };
  options.listen = text;
  const auto address = http::split_listen_address(text);
  if (!address) return wrong();
  if (!address->bracketed && address->host.find(':') != std::string::npos) return wrong();
  const auto port = address->port_number();
  if (!port || *port == 0) return wrong();
  options.host = address->host;
  options.port = *port;
  return {};
}

Result<void> read_path(std::string path, ReceiverOptions& options) {
  if (!path.starts_with('/') || path.find_first_of("?#% ") != std::string::npos) {
    return fail(misconfigured("bad_path", fmt::format("path: '{}' is no path", path),
                              "write it as /inbox, without a query"));
  }
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  options.path = std::move(path);
  return {};
}

Result<void> read_tls(const config::Values& values, ReceiverOptions& options) {
  options.tls_cert = values.text("tls_cert");
  options.tls_key = values.text("tls_key");
  options.tls_ca = values.text("tls_ca");
  if (options.tls_cert.empty() != options.tls_key.empty() ||
      (options.tls_cert.empty() && !options.tls_ca.empty())) {
    return fail(misconfigured("tls_files", "TLS needs both tls_cert and tls_key",
                              "give the certificate chain and its key"));
  }
  return {};
}

void read_limits(const config::Values& values, std::int64_t max_record_bytes,
                 ReceiverOptions& options) {
  options.max_body_bytes =
      static_cast<std::size_t>(std::min(values.bytes("max_body_bytes"), max_record_bytes));
  options.max_header_bytes = static_cast<std::size_t>(values.bytes("max_header_bytes"));
  options.max_connections = static_cast<std::size_t>(values.integer("max_connections"));
  options.max_waiting = static_cast<std::size_t>(values.integer("max_waiting"));
  // A single request of the largest size always fits.
  options.max_waiting_bytes = std::max(static_cast<std::size_t>(values.bytes("max_waiting_bytes")),
                                       options.max_body_bytes + options.max_header_bytes);
  options.idle_timeout = values.duration("idle_timeout");
  options.request_timeout = values.duration("request_timeout");
  options.response_timeout = values.duration("response_timeout");
}

}  // namespace

config::FieldTable receiver_fields() {
  return kFields;
}

Result<ReceiverOptions> parse_receiver_options(const config::Values& values,
                                               std::int64_t max_record_bytes) {
  ReceiverOptions options;
  if (auto read = read_listen(values.text("listen"), options); !read) return fail(read.error());
  if (auto read = read_path(values.text("path"), options); !read) return fail(read.error());
  if (auto read = read_tls(values, options); !read) return fail(read.error());
  auto auth = ReceiverAuth::make(values);
  if (!auth) return fail(auth.error());
  options.auth = std::move(*auth);
  read_limits(values, max_record_bytes, options);
  return options;
}

}  // namespace relay::webhook
