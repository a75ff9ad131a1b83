#include "backends/rabbitmq/errors.h"

#include <fmt/core.h>
#include <openssl/err.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "backends/rabbitmq/client_library.h"
#include "core/tls_remedy.h"

namespace relay::rabbitmq {

namespace {

Error make(ErrorClass error_class, std::string code, std::string message, std::string remedy = {}) {
  return {error_class, std::move(code), std::move(message), std::move(remedy), {}};
}

/// Reply codes of AMQP for which the operator must do something.
struct Known {
  int code;
  std::string_view name;
  std::string_view remedy;
};

constexpr std::array kKnown = {
    Known{AMQP_ACCESS_REFUSED, "access_refused",
          "correct user and password, or give the user the permission (rabbitmqctl "
          "set_permissions)"},
    Known{AMQP_NOT_FOUND, "not_found", "make what is missing, or correct its name"},
    Known{AMQP_NOT_ALLOWED, "not_allowed",
          "correct the virtual host in url, and let the user into it"},
    Known{AMQP_INVALID_PATH, "not_allowed", "correct the virtual host in url"},
    Known{AMQP_COMMAND_INVALID, "command_invalid", "look at the broker's log"},
};

/// What the broker does not like about what is declared.
std::string_view remedy_of_precondition(std::string_view text) {
  if (text.find("inequivalent arg") != std::string_view::npos) {
    return "it exists with other properties: use these, or set declare to false";
  }
  if (text.find("invalid arg") != std::string_view::npos ||
      text.find("invalid property") != std::string_view::npos) {
    return "correct the argument that the broker names, in arguments or in the option for it: a "
           "number is written without quotes, and each type of queue knows its own arguments";
  }
  return "correct what the broker names, or look at its log";
}

std::string tls_words(int status) {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? amqp_error_string2(status) : reason;
}

bool is_tls(int status) {
  return status <= AMQP_STATUS_SSL_ERROR && status > AMQP_STATUS_SSL_ERROR - 0x100;
}

}  // namespace

Error closed_by_broker(int code, std::string_view text, std::string_view doing,
                       std::string_view address) {
  const auto message =
      fmt::format("{}: RabbitMQ at {} says {}", doing, address, text.substr(0, 400));
  if (code == AMQP_PRECONDITION_FAILED &&
      text.find("delivery acknowledgement") != std::string_view::npos) {
    return make(ErrorClass::transient, "consumer_timeout", message,
                "see why the sink took nothing for longer than the broker's consumer_timeout; the "
                "messages come again");
  }
  if (code == AMQP_PRECONDITION_FAILED) {
    return make(ErrorClass::misconfigured, "precondition_failed", message,
                std::string(remedy_of_precondition(text)));
  }
  const auto known = std::ranges::find(kKnown, code, &Known::code);
  if (known == kKnown.end()) {
    return make(ErrorClass::transient, "closed_by_broker", message,
                "if this stays, look at the broker's log");
  }
  return make(ErrorClass::misconfigured, std::string(known->name), message,
              std::string(known->remedy));
}

Error library_error(int status, std::string_view doing, std::string_view address) {
  if (status == AMQP_STATUS_SSL_PEER_VERIFY_FAILED ||
      status == AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED) {
    return not_trusted(tls_words(status), address);
  }
  if (is_tls(status)) {
    const std::string said = tls_words(status);
    return make(ErrorClass::transient, "tls",
                fmt::format("{}: TLS with {} failed: {}", doing, address, said),
                tls_remedy(said,
                           "if this stays, the broker may ask for a client certificate (tls_cert, "
                           "tls_key), or not speak TLS (amqp://)"));
  }
  return make(ErrorClass::transient, "connection",
              fmt::format("{}: RabbitMQ at {}: {}", doing, address, amqp_error_string2(status)),
              "check host and port in url, that the broker runs, and that this machine reaches it");
}

Error not_trusted(std::string_view why, std::string_view address) {
  return make(ErrorClass::misconfigured, "tls_verification",
              fmt::format("the certificate of {} is not trusted: {}", address, why),
              tls_remedy(why, "set tls_ca to the authority that signed it"));
}

Error unroutable(std::string_view exchange, std::string_view routing_key) {
  return make(ErrorClass::misconfigured, "unroutable",
              fmt::format("no queue takes the routing key '{}' of {}", routing_key.substr(0, 255),
                          exchange.empty() ? std::string("the default exchange")
                                           : fmt::format("the exchange '{}'", exchange)),
              "bind a queue to it, or set mandatory to false, which drops such messages");
}

}  // namespace relay::rabbitmq
