#include "backends/kafka/client.h"

#include <fmt/core.h>
#include <librdkafka/rdkafka.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "backends/kafka/errors.h"
#include "config/tls.h"
#include "core/log.h"

namespace relay::kafka {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSlice{100};  // how late a stop may be noticed
/// One broker of several may refuse us by mistake: so long another one may still answer.
constexpr milliseconds kPatience{1000};

// Called by the thread that polls. What is retried by the library itself is worth a line only when
// it makes a delivery or a read fail, which is told there.
void on_error(rd_kafka_t* client, int code, const char* reason, void* opaque) {
  auto& events = *static_cast<ClientEvents*>(opaque);
  log::debug("kafka_client", events.pipeline, "{}: {}",
             rd_kafka_err2name(static_cast<rd_kafka_resp_err_t>(code)),
             reason == nullptr ? "" : reason);
  if (code == RD_KAFKA_RESP_ERR__FATAL) {
    std::array<char, 512> text{};
    events.trouble = rd_kafka_fatal_error(client, text.data(), text.size());
    events.trouble_detail = text.data();
    events.fatal = true;
    return;
  }
  // It only repeats what was said of each broker before.
  if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && events.trouble) return;
  events.trouble = code;
  events.trouble_detail = reason == nullptr ? "" : reason;
}

// Called by the library's threads as well.
void on_log(const rd_kafka_t* client, int, const char* facility, const char* text) {
  const auto* events =
      client == nullptr ? nullptr : static_cast<const ClientEvents*>(rd_kafka_opaque(client));
  log::debug("kafka_library", events == nullptr ? std::string_view() : events->pipeline, "{}: {}",
             facility, text);
}

// Called by a thread of the library's own.
void on_token_due(rd_kafka_t* client, const char*, void* opaque) {
  static_cast<ClientEvents*>(opaque)->tokens->refresh(client);
}

int on_statistics(rd_kafka_t*, char* json, std::size_t size, void* opaque) {
  auto& events = *static_cast<ClientEvents*>(opaque);
  const std::string_view text(json, size);
  log::debug("kafka_statistics", events.pipeline, "{}", text);
  if (events.statistics != nullptr) events.statistics->take(text);
  return 0;
}

Result<void> check_files(const ClientOptions& options) {
  for (const auto& [option, path] : options.files) {
    if (::access(path.c_str(), R_OK) != 0) {
      return fail(ErrorClass::misconfigured, "unreadable_file",
                  fmt::format("{}: the file {} cannot be read", option, path),
                  "correct the path, or let the relay's user read it");
    }
  }
  return {};
}

/// Retrying does not help, so there is no need to wait for the end of the time.
bool is_final(const ClientEvents& events, std::string_view brokers) {
  return events.fatal ||
         (events.trouble && trouble_of(events, brokers).error_class == ErrorClass::misconfigured);
}

}  // namespace

void Configuration::Free::operator()(rd_kafka_conf_t* conf) const {
  rd_kafka_conf_destroy(conf);
}

Result<Configuration> Configuration::make(const ClientOptions& options, ClientEvents& events) {
  if (auto checked = check_files(options); !checked) return fail(checked.error());
  Configuration made;
  made.conf_.reset(rd_kafka_conf_new());
  events = ClientEvents{};
  events.pipeline = options.pipeline;
  rd_kafka_conf_set_opaque(made.get(), &events);
  rd_kafka_conf_set_error_cb(made.get(), &on_error);
  rd_kafka_conf_set_log_cb(made.get(), &on_log);
  rd_kafka_conf_set_stats_cb(made.get(), &on_statistics);
  if (options.iam) {
    events.tokens = std::make_unique<IamTokens>(*options.iam);
    rd_kafka_conf_set_oauthbearer_token_refresh_cb(made.get(), &on_token_due);
    rd_kafka_conf_enable_sasl_queue(made.get(), 1);
  }
  if (auto set = made.set("client.id", "pgtrickle-relay-" + options.pipeline); !set) {
    return fail(set.error());
  }
  for (const auto& [name, value] : options.properties) {
    if (auto set = made.set(name, value); !set) return fail(set.error());
  }
  return made;
}

Result<void> Configuration::set(std::string_view name, std::string_view value) {
  std::array<char, 512> text{};
  const std::string property(name);
  const auto result = rd_kafka_conf_set(conf_.get(), property.c_str(), std::string(value).c_str(),
                                        text.data(), text.size());
  if (result == RD_KAFKA_CONF_OK) return {};
  // The library's words may repeat the value, which may be a secret.
  const std::string_view said(text.data());
  return fail(property_error(
      name, !value.empty() && said.find(value) != std::string_view::npos ? "" : said));
}

Result<void> wait_for_cluster(rd_kafka_t* client, const ClientOptions& options,
                              ClientEvents& events, Deadline until, std::stop_token stop) {
  if (events.tokens) {
    if (rd_kafka_error_t* error = rd_kafka_sasl_background_callbacks_enable(client)) {
      const Error why = property_error("sasl_mechanism", rd_kafka_error_string(error));
      rd_kafka_error_destroy(error);
      return fail(why);
    }
  }
  const Deadline patience = Deadline::after(kPatience);
  while (true) {
    const auto slice = std::clamp(until.left(), milliseconds(1), kSlice);
    const struct rd_kafka_metadata* metadata = nullptr;
    const auto result =
        rd_kafka_metadata(client, 0, nullptr, &metadata, static_cast<int>(slice.count()));
    if (result == RD_KAFKA_RESP_ERR_NO_ERROR) {
      rd_kafka_metadata_destroy(metadata);
      events.trouble.reset();
      return {};
    }
    if (stop.stop_requested()) {
      return fail(ErrorClass::cancelled, "stopped", "stopped while connecting to Kafka");
    }
    rd_kafka_poll(client, 0);
    if (until.passed() || (patience.passed() && is_final(events, options.brokers))) {
      return fail(trouble_of(events, options.brokers));
    }
  }
}

void stop_tokens(const rd_kafka_t* client) {
  const auto* events = static_cast<const ClientEvents*>(rd_kafka_opaque(client));
  if (events->tokens) events->tokens->stop();
}

Error trouble_of(const ClientEvents& events, std::string_view brokers) {
  if (events.tokens) {
    if (auto failure = events.tokens->failure()) {
      return std::move(*failure).in_context(fmt::format("Kafka at {}", brokers));
    }
  }
  const int code = events.trouble.value_or(0);
  return events.tokens ? iam_cluster_error(code, events.trouble_detail, brokers)
                       : cluster_error(code, events.trouble_detail, brokers);
}

bool rdkafka_has_fetch_backoff() {
  constexpr int kVersion22 = 0x02020000;
  return rd_kafka_version() >= kVersion22;
}

void warn_of_no_verification(const ClientOptions& options) {
  if (options.tls_verify) return;
  config::warn_of_no_verification(options.pipeline, options.brokers);
}

}  // namespace relay::kafka
