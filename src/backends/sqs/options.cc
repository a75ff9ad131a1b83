#include "backends/sqs/options.h"

#include <fmt/core.h>

#include <array>
#include <utility>

#include "backends/sqs/fields.h"
#include "connector/field_mapping.h"
#include "http/url.h"

namespace relay::sqs {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kOwnSinkFields = {
    Field{
        .name = "message_group_id",
        .meaning = "FIFO queues: template of the message group; the default is the message's key"},
    Field{.name = "max_in_flight",
          .type = FieldType::integer,
          .default_text = "16",
          .meaning = "requests of up to ten messages under way at once",
          .min = 1,
          .max = 10000},
    Field{.name = "max_message_bytes",
          .type = FieldType::bytes,
          .default_text = "256KiB",
          .meaning = "what the queue takes: bytes of one message with its attributes, and of one "
                     "request",
          .min = 1024,
          .max = 1073741824.0},
};

constexpr std::array kOwnSourceFields = {
    Field{.name = "wait",
          .type = FieldType::duration,
          .default_text = "20s",
          .meaning = "how long a request waits for messages (a long poll)",
          .min = 1,
          .max = 20},
    Field{.name = "visibility_timeout",
          .type = FieldType::duration,
          .default_text = "30s",
          .meaning = "how long a message stays hidden from others after the relay was killed; "
                     "while it is in work that is extended",
          .min = 1,
          .max = 43200},
    Field{.name = "max_in_flight",
          .type = FieldType::integer,
          .default_text = "4",
          .meaning = "requests for up to ten messages under way at once",
          .min = 1,
          .max = 1000},
};

constexpr auto kSinkFields = config::joined(kQueueFields, kOwnSinkFields);
constexpr auto kSourceFields = with_mapping_fields(config::joined(kQueueFields, kOwnSourceFields));

Result<void> read_queue_url(const config::Values& values, QueueOptions& options) {
  options.queue_url = values.text("queue_url");
  const auto url = http::parse_url(options.queue_url);
  const auto slash = options.queue_url.rfind('/');
  if (!url || url->rest.size() < 2 || slash + 1 == options.queue_url.size()) {
    return fail(misconfigured("bad_queue_url", "queue_url is no address of a queue",
                              "write it as https://sqs.<region>.amazonaws.com/<account>/<queue>"));
  }
  options.queue = options.queue_url.substr(slash + 1);
  options.fifo = options.queue.ends_with(".fifo");
  options.region = values.has("region") ? values.text("region") : region_of_host(url->host);
  options.endpoint = url->origin() + "/";
  options.host = url->authority;
  if (!values.has("endpoint")) return {};
  const auto endpoint = http::parse_url(values.text("endpoint"));
  if (!endpoint) return fail(endpoint.error().in_context("endpoint"));
  // Emulators and proxies name queues by a host that cannot be reached; the endpoint can.
  options.endpoint = endpoint->origin() + "/";
  options.host = endpoint->authority;
  return {};
}

Result<void> read_credentials(const config::Values& values, QueueOptions& options) {
  options.profile = values.text("profile");
  options.credentials = {values.text("access_key_id"), values.text("secret_access_key"),
                         values.text("session_token")};
  if (options.credentials.access_key.empty() != options.credentials.secret_key.empty()) {
    return fail(misconfigured("half_a_key", "access_key_id and secret_access_key belong together",
                              "set both, or neither"));
  }
  return {};
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

config::FieldTable source_fields() {
  return kSourceFields;
}

std::string region_of_host(std::string_view host) {
  // sqs.eu-west-1.amazonaws.com[.cn], sqs-fips.us-east-1.amazonaws.com, and eu-west-1.queue.…
  const auto dot = host.find('.');
  const auto amazon = host.find(".amazonaws.com");
  if (dot == std::string_view::npos || amazon == std::string_view::npos) return {};
  const auto first = host.substr(0, dot);
  if (first == "sqs" || first == "sqs-fips") {
    return amazon > dot ? std::string(host.substr(dot + 1, amazon - dot - 1)) : std::string();
  }
  if (host.substr(dot).starts_with(".queue.")) return std::string(first);
  return {};
}

Result<QueueOptions> parse_queue_options(const config::Values& values) {
  QueueOptions options;
  if (auto read = read_queue_url(values, options); !read) return fail(read.error());
  if (auto read = read_credentials(values, options); !read) return fail(read.error());
  options.timeout = values.duration("timeout");
  http::ClientOptions& client = options.client;
  client.connect_timeout = values.duration("connect_timeout");
  client.max_response_bytes = 32u << 20;
  if (auto read = config::read_tls(values, client); !read) return fail(read.error());
  return options;
}

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  SinkOptions options;
  auto queue = parse_queue_options(values);
  if (!queue) return fail(queue.error());
  options.queue = std::move(*queue);
  options.max_in_flight = static_cast<std::size_t>(values.integer("max_in_flight"));
  options.queue.client.max_connections = options.max_in_flight;
  options.max_message_bytes = static_cast<std::size_t>(values.bytes("max_message_bytes"));
  if (values.has("message_group_id") && !options.queue.fifo) {
    return fail(misconfigured("no_fifo_queue",
                              fmt::format("message_group_id is set, and the queue {} is no FIFO "
                                          "queue: its name does not end in .fifo",
                                          options.queue.queue),
                              "take message_group_id away, or use a FIFO queue"));
  }
  return options;
}

Result<SourceOptions> parse_source_options(const config::Values& values) {
  SourceOptions options;
  auto queue = parse_queue_options(values);
  if (!queue) return fail(queue.error());
  options.queue = std::move(*queue);
  options.wait = values.duration("wait");
  options.visibility_timeout = values.duration("visibility_timeout");
  options.max_in_flight = static_cast<std::size_t>(values.integer("max_in_flight"));
  options.queue.client.max_connections = options.max_in_flight;
  return options;
}

}  // namespace relay::sqs
