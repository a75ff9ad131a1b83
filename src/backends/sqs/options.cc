#include "backends/sqs/options.h"

#include <fmt/core.h>

#include <utility>

#include "backends/sqs/queue_options.h"
#include "connector/field_mapping.h"
#include "http/url.h"

namespace relay::sqs {

namespace {

using config::FieldType;
using config::fills;
using config::fills_nothing;
using config::Option;

constexpr Option<SinkOptions> kOwnSinkOptions[] = {
    // The registry reads message_group_id: it is the sink's name of subject_template.
    {{.name = "message_group_id",
      .meaning = "FIFO queues: template of the message group; the default is the message's key"},
     fills_nothing},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "16",
      .meaning = "requests of up to ten messages under way at once",
      .min = 1,
      .max = 10000},
     fills<&SinkOptions::max_in_flight>},
    {{.name = "max_message_bytes",
      .type = FieldType::bytes,
      .meaning = "a message that is larger with its attributes is rejected; the default is the "
                 "queue's MaximumMessageSize, which this can only lower",
      .min = 1024,
      .max = 1073741824.0},
     fills<&SinkOptions::max_message_bytes>},
};

constexpr Option<SourceOptions> kOwnSourceOptions[] = {
    {{.name = "wait",
      .type = FieldType::duration,
      .default_text = "20s",
      .meaning = "how long a request waits for messages (a long poll)",
      .min = 1,
      .max = 20},
     fills<&SourceOptions::wait>},
    {{.name = "visibility_timeout",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "how long a message stays hidden from others after the relay was killed; "
                 "while it is in work that is extended",
      .min = 1,
      .max = 43200},
     fills<&SourceOptions::visibility_timeout>},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "4",
      .meaning = "requests for up to ten messages under way at once",
      .min = 1,
      .max = 1000},
     fills<&SourceOptions::max_in_flight>},
};

constexpr auto kSinkOptions = config::joined<SinkOptions>(
    config::within<&SinkOptions::queue, kQueueOptions>, kOwnSinkOptions);
constexpr auto kSourceOptions = config::joined<SourceOptions>(
    config::within<&SourceOptions::queue, kQueueOptions>, kOwnSourceOptions);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);
constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);

/// What follows from `queue_url` and `endpoint`.
Result<void> complete_address(const config::Values& values, QueueOptions& options) {
  const auto url = http::parse_url(options.queue_url);
  const auto slash = options.queue_url.rfind('/');
  if (!url || url->rest.size() < 2 || slash + 1 == options.queue_url.size()) {
    return fail(misconfigured("bad_queue_url", "queue_url is no address of a queue",
                              "write it as https://sqs.<region>.amazonaws.com/<account>/<queue>"));
  }
  options.queue = options.queue_url.substr(slash + 1);
  options.fifo = options.queue.ends_with(".fifo");
  if (!values.has("region")) options.identity.region = region_of_host(url->host);
  const std::string given = std::exchange(options.endpoint, url->origin() + "/");
  options.host = url->authority;
  if (!values.has("endpoint")) return {};
  const auto endpoint = http::parse_url(given);
  if (!endpoint) return fail(endpoint.error().in_context("endpoint"));
  // Emulators and proxies name queues by a host that cannot be reached; the endpoint can.
  options.endpoint = endpoint->origin() + "/";
  options.host = endpoint->authority;
  return {};
}

Result<void> complete(const config::Values& values, std::size_t connections,
                      QueueOptions& options) {
  if (auto done = complete_address(values, options); !done) return done;
  if (auto checked = aws::check_identity(options.identity); !checked) return checked;
  options.client.max_connections = connections;
  options.client.max_response_bytes = 32u << 20;
  return config::check_tls(options.client);
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

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  auto options = config::filled<SinkOptions>(kSinkOptions, values);
  if (!options) return options;
  if (auto done = complete(values, options->max_in_flight, options->queue); !done) {
    return fail(done.error());
  }
  if (values.has("message_group_id") && !options->queue.fifo) {
    return fail(misconfigured("no_fifo_queue",
                              fmt::format("message_group_id is set, and the queue {} is no FIFO "
                                          "queue: its name does not end in .fifo",
                                          options->queue.queue),
                              "take message_group_id away, or use a FIFO queue"));
  }
  return options;
}

Result<SourceOptions> parse_source_options(const config::Values& values) {
  auto options = config::filled<SourceOptions>(kSourceOptions, values);
  if (!options) return options;
  if (auto done = complete(values, options->max_in_flight, options->queue); !done) {
    return fail(done.error());
  }
  return options;
}

}  // namespace relay::sqs
