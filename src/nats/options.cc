#include "nats/options.h"

#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "nats/subject.h"

namespace relay::nats {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kSinkFields = {
    Field{.name = "url",
          .default_text = "nats://localhost:4222",
          .meaning = "server: nats://host:port, or tls://host:port; several, separated by commas, "
                     "are tried in turn",
          .secret = true,
          .aliases = "urls,servers"},
    Field{.name = "stream",
          .meaning = "the JetStream stream that takes the messages: checked when connecting, and "
                     "nothing is stored in another one"},
    Field{.name = "subject",
          .meaning = "subject, or template of it; prefix.> means prefix.{stream_table}; default "
                     "{stream_table}"},
    Field{.name = "create_stream",
          .type = FieldType::boolean,
          .default_text = "false",
          .meaning = "make the stream (file storage, one replica) where it is absent"},
    Field{.name = "stream_subjects",
          .type = FieldType::list,
          .meaning = "the subjects of a stream that create_stream makes; default: what subject "
                     "can become"},
    Field{.name = "credentials_file", .meaning = "file with the user's JWT and NKey seed (.creds)"},
    Field{.name = "user", .meaning = "user name"},
    Field{.name = "password", .meaning = "password of user", .secret = true},
    Field{.name = "token", .meaning = "authentication token", .secret = true},
    Field{.name = "tls",
          .type = FieldType::boolean,
          .default_text = "false",
          .meaning = "use TLS; tls:// and tls_ca, tls_cert imply it"},
    Field{.name = "tls_ca",
          .meaning = "file with the authorities to trust (PEM); default: the system's"},
    Field{.name = "tls_cert", .meaning = "file with the client's certificate chain (PEM)"},
    Field{.name = "tls_key", .meaning = "file with the client's private key (PEM)"},
    Field{.name = "tls_verify",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "check the server's certificate and name; turning it off is for tests"},
    Field{.name = "max_in_flight",
          .type = FieldType::integer,
          .default_text = "4000",
          .meaning = "messages sent and not yet acknowledged",
          .min = 1,
          .max = 1000000},
    Field{.name = "ack_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "after that long without its acknowledgement a message is sent again, with "
                     "the same id",
          .min = 0.01},
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long connecting to one server may take",
          .min = 0.01},
    Field{.name = "operation_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long asking for or making a stream may take",
          .min = 0.01},
    Field{.name = "key_order",
          .type = FieldType::choice,
          .default_text = "auto",
          .meaning = "one: at most one message of a key under way; pipelined: any number; auto: "
                     "one where the stream is replicated or refuses when full",
          .choices = "auto,one,pipelined"},
};

Error misconfigured(std::string code, std::string message, std::string remedy) {
  return {ErrorClass::misconfigured, std::move(code), std::move(message), std::move(remedy), {}};
}

Error bad_url(std::string_view what) {
  return misconfigured("bad_url", fmt::format("url: {}", what),
                       "write it as nats://host:4222, or tls://host:4222");
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    unsigned value = 0;
    const auto digits = text.substr(i + 1, 2);
    const auto end = digits.data() + digits.size();
    if (digits.size() != 2 || std::from_chars(digits.data(), end, value, 16).ptr != end) {
      return std::nullopt;
    }
    out.push_back(static_cast<char>(value));
    i += 2;
  }
  return out;
}

Result<void> read_credentials(std::string_view text, Endpoint& endpoint) {
  const auto colon = text.find(':');
  const auto user = percent_decoded(text.substr(0, colon));
  const auto password =
      colon == std::string_view::npos ? std::string() : percent_decoded(text.substr(colon + 1));
  if (!user || !password) return fail(bad_url("a % in the credentials begins no two hex digits"));
  if (colon == std::string_view::npos) {
    endpoint.token = *user;
  } else {
    endpoint.user = *user;
    endpoint.password = *password;
  }
  return {};
}

Result<void> read_address(std::string_view text, Endpoint& endpoint) {
  const auto colon = text.rfind(':');
  const bool has_port = colon != std::string_view::npos && text.find(']', colon) == text.npos &&
                        (text.front() == '[' || text.find(':') == colon);
  const auto host = has_port ? text.substr(0, colon) : text;
  const auto port = has_port ? text.substr(colon + 1) : std::string_view("4222");
  unsigned number = 0;
  const auto end = port.data() + port.size();
  const auto parsed = std::from_chars(port.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number == 0 || number > 65535) {
    return fail(bad_url(fmt::format("'{}' is no port", port)));
  }
  if (host.empty()) return fail(bad_url("it names no host"));
  endpoint.host = host;
  if (host.front() == '[' && host.back() == ']') endpoint.host = host.substr(1, host.size() - 2);
  endpoint.address = fmt::format("{}:{}", host, number);
  return {};
}

Result<Endpoint> parse_endpoint(std::string_view url) {
  Endpoint endpoint;
  if (const auto scheme = url.find("://"); scheme != std::string_view::npos) {
    const auto name = url.substr(0, scheme);
    if (name != "nats" && name != "tls") {
      return fail(bad_url(fmt::format("the scheme '{}' is not known", name)));
    }
    endpoint.tls = name == "tls";
    url.remove_prefix(scheme + 3);
  }
  while (url.ends_with('/')) url.remove_suffix(1);
  if (const auto at = url.rfind('@'); at != std::string_view::npos) {
    if (auto read = read_credentials(url.substr(0, at), endpoint); !read) return fail(read.error());
    url.remove_prefix(at + 1);
  }
  if (url.empty()) return fail(bad_url("it names no host"));
  if (auto read = read_address(url, endpoint); !read) return fail(read.error());
  return endpoint;
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

Result<std::vector<std::string>> subjects_to_create(const config::Values& values) {
  if (values.has("stream_subjects")) return values.list("stream_subjects");
  if (values.has("subject")) {
    return std::vector<std::string>{subject_pattern(values.text("subject"))};
  }
  return fail(misconfigured("no_stream_subjects",
                            "create_stream is set, but not which subjects the stream takes",
                            "set stream_subjects, for example [\"orders.>\"]"));
}

void read_timeouts_and_limits(const config::Values& values, Options& options) {
  options.max_in_flight = static_cast<std::size_t>(values.integer("max_in_flight"));
  options.ack_timeout = values.duration("ack_timeout");
  options.connect_timeout = values.duration("connect_timeout");
  options.operation_timeout = values.duration("operation_timeout");
  const std::string order = values.text("key_order");
  options.key_order = order == "one"         ? KeyOrder::one
                      : order == "pipelined" ? KeyOrder::pipelined
                                             : KeyOrder::automatic;
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

Result<void> read_security(const config::Values& values, Options& options) {
  options.credentials_file = values.text("credentials_file");
  options.tls_ca = values.text("tls_ca");
  options.tls_cert = values.text("tls_cert");
  options.tls_key = values.text("tls_key");
  options.tls_verify = values.boolean("tls_verify");
  options.tls = values.boolean("tls") || !options.tls_ca.empty() || !options.tls_cert.empty();
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return fail(misconfigured("half_a_certificate", "tls_cert and tls_key belong together",
                              "set both, or neither"));
  }
  if (values.has("user") && values.has("token")) {
    return fail(misconfigured("two_credentials", "both user and token are set", "set one of them"));
  }
  for (Endpoint& endpoint : options.endpoints) {
    if (values.has("user")) {
      endpoint.user = values.text("user");
      endpoint.password = values.text("password");
      endpoint.token.clear();
    } else if (values.has("token")) {
      endpoint.token = values.text("token");
      endpoint.user.clear();
      endpoint.password.clear();
    }
  }
  return {};
}

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls) {
  std::vector<Endpoint> endpoints;
  while (true) {
    const auto comma = urls.find(',');
    auto endpoint = parse_endpoint(trimmed(urls.substr(0, comma)));
    if (!endpoint) return fail(endpoint.error());
    endpoints.push_back(std::move(*endpoint));
    if (comma == std::string_view::npos) return endpoints;
    urls.remove_prefix(comma + 1);
  }
}

Result<Options> parse_options(const config::Values& values) {
  Options options;
  auto endpoints = parse_endpoints(values.text("url"));
  if (!endpoints) return fail(endpoints.error());
  options.endpoints = std::move(*endpoints);
  options.stream = values.text("stream");
  options.create_stream = values.boolean("create_stream");
  read_timeouts_and_limits(values, options);
  if (auto read = read_security(values, options); !read) return fail(read.error());
  if (const auto subject = default_subject(values); !subject) return fail(subject.error());
  if (!options.stream.empty() &&
      options.stream.find_first_of(" .*>/\\\t\r\n") != std::string::npos) {
    return fail(misconfigured("bad_stream_name",
                              fmt::format("'{}' cannot be the name of a stream", options.stream),
                              "stream names hold no spaces, dots, wildcards or slashes"));
  }
  if (options.create_stream) {
    if (options.stream.empty()) {
      return fail(misconfigured("no_stream_name", "create_stream is set, but not stream",
                                "set stream to the name that it shall have"));
    }
    auto subjects = subjects_to_create(values);
    if (!subjects) return fail(subjects.error());
    options.stream_subjects = std::move(*subjects);
  }
  return options;
}

Result<std::string> default_subject(const config::Values& values) {
  return subject_template_of(values.text("subject"));
}

Result<std::string> subject_template_of(std::string_view subject) {
  if (subject.empty()) return std::string("{stream_table}");
  std::string text(subject);
  if (text.ends_with(".>")) text.replace(text.size() - 1, 1, "{stream_table}");
  if (has_wildcard(text)) {
    return fail(misconfigured(
        "wildcard_subject", fmt::format("subject '{}': one cannot publish to a wildcard", subject),
        "use a plain subject, a template such as orders.{op}, or a prefix that ends in .>"));
  }
  return text;
}

}  // namespace relay::nats
