#pragma once

#include <array>
#include <cstddef>

#include "config/fields.h"

namespace relay::config {

/// The options by which a client trusts a server, and shows itself to it. The same for every
/// backend that speaks TLS.
inline constexpr std::array kTlsFields = {
    Field{.name = "tls_ca",
          .meaning = "file with the authorities to trust (PEM); default: the system's"},
    Field{.name = "tls_cert", .meaning = "file with the client's certificate chain (PEM)"},
    Field{.name = "tls_key", .meaning = "file with the client's private key (PEM)"},
    Field{.name = "tls_verify",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "check the server's certificate and name; turning it off is for tests"},
};

/// One table of several, in their order.
template <std::size_t... sizes>
constexpr auto joined(const std::array<Field, sizes>&... parts) {
  std::array<Field, (sizes + ...)> all{};
  std::size_t next = 0;
  const auto append = [&](const auto& part) {
    for (const Field& field : part) all[next++] = field;
  };
  (append(parts), ...);
  return all;
}

}  // namespace relay::config
