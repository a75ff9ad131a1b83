#include "backends/nats/errors.h"

#include <fmt/format.h>
#include <nats/nats.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/text.h"
#include "core/tls_remedy.h"

namespace relay::nats {

namespace {

Error make(ErrorClass error_class, std::string code, std::string message, std::string remedy = {}) {
  return {error_class, std::move(code), std::move(message), std::move(remedy), {}};
}

/// The library's words without the place in its source that they begin with.
std::string_view words(int status, std::string_view detail) {
  if (detail.starts_with('(')) {
    if (const auto end = detail.find("): "); end != std::string_view::npos) {
      detail.remove_prefix(end + 3);
    }
  }
  return detail.empty() ? std::string_view(natsStatus_GetText(static_cast<natsStatus>(status)))
                        : detail;
}

/// One word for a shell.
std::string in_quotes(std::string_view word) {
  std::string text = "'";
  for (const char c : word) {
    if (c == '\'') {
      text += "'\\''";
    } else {
      text.push_back(c);
    }
  }
  return text + "'";
}

bool is_about_trust(std::string_view detail) {
  return contains_ignoring_case(detail, "certificate") ||
         contains_ignoring_case(detail, "hostname mismatch") ||
         contains_ignoring_case(detail, "ip address mismatch") ||
         contains_ignoring_case(detail, "verify");
}

Error tls_error(std::string_view said, std::string_view address) {
  if (is_about_trust(said)) {
    return make(ErrorClass::misconfigured, "tls_verification",
                fmt::format("the certificate of {} is not trusted: {}", address, said),
                tls_remedy(said, "set tls_ca to the authority that signed it"));
  }
  return make(ErrorClass::transient, "tls_handshake",
              fmt::format("TLS with {} failed: {}", address, said),
              tls_remedy(said,
                         "if this stays, the server may ask for a client certificate (tls_cert, "
                         "tls_key), or not speak TLS"));
}

/// What a stream says of one message, by its code.
struct Refusal {
  int code;
  ErrorClass error_class;
  std::string_view name;
  std::string_view remedy;
};

constexpr std::array kRefusals = {
    Refusal{10054, ErrorClass::rejected, "too_large",
            "raise the stream's max_msg_size, or send less"},
    Refusal{10097, ErrorClass::rejected, "headers_too_large", "send fewer or shorter headers"},
    Refusal{10060, ErrorClass::misconfigured, "other_stream",
            "another stream takes this subject: correct stream, or the streams' subjects"},
    Refusal{10077, ErrorClass::transient, "stream_full",
            "make room in the stream, or raise its limits"},
    Refusal{10023, ErrorClass::transient, "no_resources", "the server has no resources left"},
    Refusal{10028, ErrorClass::transient, "no_memory", "raise the server's JetStream memory"},
    Refusal{10047, ErrorClass::transient, "no_storage", "raise the server's JetStream storage"},
    Refusal{10109, ErrorClass::misconfigured, "stream_sealed", "the stream is sealed: use another"},
    Refusal{10111, ErrorClass::misconfigured, "rollup_refused",
            "let the stream take Nats-Rollup (nats stream edit --allow-rollup), or leave it out of "
            "headers"},
    Refusal{10165, ErrorClass::rejected, "bad_ttl",
            "write Nats-TTL as a time such as 90s or 1h, or as seconds"},
    Refusal{10166, ErrorClass::misconfigured, "ttl_refused",
            "let the stream take Nats-TTL (nats stream edit --allow-msg-ttl), or leave it out of "
            "headers"},
};

}  // namespace

Error connect_error(int status, std::string_view detail, std::string_view address) {
  const auto said = words(status, detail);
  switch (status) {
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_NOT_PERMITTED:
      return make(ErrorClass::misconfigured, "authentication",
                  fmt::format("{} refuses the credentials: {}", address, said),
                  "correct user and password, token or credentials_file");
    case NATS_SECURE_CONNECTION_REQUIRED:
      return make(ErrorClass::misconfigured, "tls_required", fmt::format("{} wants TLS", address),
                  "use tls:// in url, or set tls");
    case NATS_SECURE_CONNECTION_WANTED:
      return make(ErrorClass::misconfigured, "tls_not_offered",
                  fmt::format("{} does not speak TLS", address),
                  "use nats:// in url and no tls option, or turn TLS on at the server");
    case NATS_SSL_ERROR:
      return tls_error(said, address);
    case NATS_INVALID_ARG:
    case NATS_ADDRESS_MISSING:
      return make(ErrorClass::misconfigured, "bad_option",
                  fmt::format("connecting to {}: {}", address, said), "correct the sink's options");
    default:
      return make(ErrorClass::transient, std::string(kUnreachable),
                  fmt::format("cannot connect to NATS at {}: {}", address, said),
                  "check host and port in url, that the server runs, and that this machine reaches "
                  "it");
  }
}

Error unresolvable(std::string_view why, std::string_view address) {
  return make(ErrorClass::transient, std::string(kUnreachable),
              fmt::format("cannot connect to NATS at {}: {}", address, why),
              "check the host in url, and this machine's name resolution");
}

Error connection_lost(int status, std::string_view detail, std::string_view address) {
  if (status == NATS_CONNECTION_AUTH_FAILED) return connect_error(status, detail, address);
  return make(
      ErrorClass::transient, "connection_lost",
      fmt::format("the connection to NATS at {} ended: {}", address, words(status, detail)));
}

std::string add_stream_command(std::string_view stream, std::span<const std::string> subjects,
                               std::string_view address) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  const bool plain = stream.find_first_not_of(kPlain) == std::string_view::npos;
  return fmt::format("nats stream add {} --subjects {} --defaults --server nats://{}",
                     plain ? std::string(stream) : in_quotes(stream),
                     in_quotes(fmt::format("{}", fmt::join(subjects, ","))), address);
}

Error no_stream(std::string_view stream, std::span<const std::string> subjects,
                std::string_view address) {
  auto error = make(ErrorClass::misconfigured, "no_stream",
                    fmt::format("{} has no stream '{}'", address, stream));
  if (subjects.empty() || subjects.front() == "*") {  // a stream of everything is refused
    static const std::array kTable = {std::string("TABLE")};
    error.remedy = fmt::format(
        "name a stream that is there; or set stream_subjects, and create_stream to true; or run, "
        "with the table's name for TABLE: {}",
        add_stream_command(stream, kTable, address));
  } else {
    error.remedy =
        fmt::format("name a stream that is there; or set create_stream to true; or run: {}",
                    add_stream_command(stream, subjects, address));
  }
  return error;
}

Error refusal(int status, int code, std::string_view text, std::string_view subject,
              std::string_view address) {
  if (status == NATS_NO_RESPONDERS) {
    const std::array subjects = {std::string(subject)};
    return make(
        ErrorClass::misconfigured, "no_stream",
        fmt::format("no JetStream stream takes the subject '{}'", subject),
        fmt::format("set stream, and stream_subjects to all subjects; or run: {}",
                    add_stream_command(subject.substr(0, subject.find('.')), subjects, address)));
  }
  if (status == NATS_TIMEOUT) {
    return make(ErrorClass::transient, "ack_timeout",
                fmt::format("no acknowledgement in time for subject '{}'", subject),
                "if this stays, look at the server's load and disk");
  }
  const auto known = std::ranges::find(kRefusals, code, &Refusal::code);
  const auto message = fmt::format("the stream refuses a message on '{}': {} ({})", subject,
                                   words(status, text), code);
  if (known == kRefusals.end()) {
    return make(ErrorClass::transient, "refused", message, "look at the stream and at the server");
  }
  return make(known->error_class, std::string(known->name), message, std::string(known->remedy));
}

Error not_permitted(std::string_view detail, std::string_view address) {
  return make(ErrorClass::misconfigured, "not_permitted",
              fmt::format("{} does not allow this user what the relay needs: {}", address,
                          words(NATS_NOT_PERMITTED, detail)),
              "allow the user to publish to the pipeline's subjects and to subscribe to _INBOX.>");
}

Error publish_error(int status, std::string_view detail, std::string_view address) {
  const auto said = words(status, detail);
  if (status == NATS_MAX_PAYLOAD) {
    return make(ErrorClass::rejected, "too_large",
                fmt::format("larger than {} takes: {}", address, said),
                "raise the server's max_payload, or lower delta_max_rows");
  }
  if (status == NATS_INVALID_SUBJECT) {
    return make(ErrorClass::rejected, "illegal_subject", fmt::format("illegal subject: {}", said),
                "correct the subject template, or the values that it is made of");
  }
  return connection_lost(status, detail, address);
}

Error stream_error(int status, int code, std::string_view detail, std::string_view stream,
                   std::string_view address) {
  const auto said = words(status, detail);
  if (status == NATS_NOT_FOUND || code == JSStreamNotFoundErr) {
    return make(ErrorClass::misconfigured, "no_stream",
                fmt::format("{} has no stream '{}'", address, stream),
                "correct stream, or make it");
  }
  if (status == NATS_NO_RESPONDERS || code == JSNotEnabledErr ||
      code == JSNotEnabledForAccountErr) {
    return make(ErrorClass::misconfigured, "no_jetstream",
                fmt::format("{} does not offer JetStream to this user", address),
                "turn JetStream on for the server and the user's account");
  }
  if (status == NATS_TIMEOUT || status == NATS_CONNECTION_CLOSED || status == NATS_IO_ERROR ||
      status == NATS_CONNECTION_DISCONNECTED || code == JSClusterNotAvailErr ||
      code == JSClusterNotLeaderErr || code == JSInsufficientResourcesErr) {
    return make(ErrorClass::transient, "stream_unavailable",
                fmt::format("stream '{}' at {}: {}", stream, address, said),
                "if this stays, the user may lack permission on $JS.API.STREAM.>");
  }
  return make(ErrorClass::misconfigured, "stream_refused",
              fmt::format("stream '{}' at {}: {}", stream, address, said),
              "correct the stream's name, subjects and limits");
}

}  // namespace relay::nats
