#include "backends/nats/options.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "backends/nats/connection_options.h"
#include "backends/nats/subject.h"
#include "config/endpoint.h"

namespace relay::nats {

namespace {

using config::FieldType;
using config::fills;
using config::fills_choice;
using config::Option;

/// The sink's options, and what becomes a part of them together with others.
struct SinkValues : Options {
  std::optional<std::string> subject;
};

constexpr Option<SinkValues> kOwnOptions[] = {
    {{.name = "stream",
      .meaning = "the JetStream stream that takes the messages: checked when connecting, and "
                 "nothing is stored in another one"},
     fills<&Options::stream>},
    {{.name = "subject",
      .meaning = "subject, or template of it; prefix.> means prefix.{stream_table}; default "
                 "{stream_table}"},
     fills<&SinkValues::subject>},
    {{.name = "create_stream",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "make the stream (file storage) where it is absent, or where none takes the "
                 "subjects"},
     fills<&Options::create_stream>},
    {{.name = "subject_dots",
      .type = FieldType::choice,
      .default_text = "escape",
      .meaning = "a dot in a value that goes into the subject: escape writes it as %2E, levels "
                 "leaves it, so that it separates two levels",
      .choices = "escape,levels"},
     config::fills_nothing},  // read by escape_of
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "4000",
      .meaning = "messages sent and not yet acknowledged",
      .min = 1,
      .max = 1000000},
     fills<&Options::max_in_flight>},
    {{.name = "ack_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "after that long without its acknowledgement a message is sent again, with "
                 "the same id",
      .min = 0.01},
     fills<&Options::ack_timeout>},
    {{.name = "key_order",
      .type = FieldType::choice,
      .default_text = "auto",
      .meaning = "one: at most one message of a key under way; pipelined: any number; auto: "
                 "one where the stream is replicated or refuses when full",
      .choices = "auto,one,pipelined"},
     fills_choice<kKeyOrders, &Options::key_order>},
};

constexpr auto kSinkOptions =
    config::joined<SinkValues>(config::inherited<SinkValues, kConnectionOptions>, kOwnOptions);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);

constexpr std::array kSchemes = {config::UrlForm::Scheme{"nats", 4222},
                                 config::UrlForm::Scheme{"tls", 4222, true}};

bool legal_in_stream_name(char c) {
  return std::string_view(" .*>/\\\t\r\n").find(c) == std::string_view::npos;
}

/// The subjects of a stream that is to be made, unless stream_subjects says them; none: they are
/// not known.
std::vector<std::string> subjects_to_create(const std::optional<std::string>& subject,
                                            const std::optional<std::string>& subject_template,
                                            bool values_have_levels) {
  if (subject) return {subject_pattern(*subject, values_have_levels)};
  if (subject_template) return {subject_pattern(*subject_template, values_have_levels)};
  return {};
}

bool values_have_levels(const config::Values& values) {
  return values.text("subject_dots") == "levels";
}

/// A name for a stream over a subject: its tokens before the first wildcard. Empty: there is none,
/// and a stream of wildcards alone would take what belongs to others.
std::string name_over(std::string_view pattern) {
  std::string name;
  std::string_view rest = pattern.substr(0, pattern.find_first_of("*>"));
  while (rest.ends_with('.')) rest.remove_suffix(1);
  for (const char c : rest) name.push_back(legal_in_stream_name(c) ? c : '_');
  return name;
}

Result<void> complete_stream_to_make(const config::Values& values,
                                     const std::optional<std::string>& subject_template,
                                     SinkValues& options) {
  if (!values.has("stream_subjects")) {
    options.stream_subjects =
        subjects_to_create(options.subject, subject_template, values_have_levels(values));
  }
  const std::string name =
      options.stream_subjects.empty() ? "" : name_over(options.stream_subjects.front());
  options.new_stream = options.stream.empty() ? name : options.stream;
  if (!options.create_stream) return {};
  const bool was_asked = values.has("create_stream");
  if (was_asked && options.stream_subjects.empty()) {
    return fail(misconfigured("no_stream_subjects",
                              "create_stream is set, but not which subjects the stream takes",
                              "set stream_subjects, for example [\"orders.>\"]"));
  }
  if (was_asked && options.new_stream.empty()) {
    return fail(misconfigured("no_stream_name", "create_stream is set, but not stream",
                              "set stream to the name that it shall have"));
  }
  options.create_stream = was_asked || !name.empty();
  return {};
}

Result<void> apply_login(const Login& login, std::vector<Endpoint>& endpoints) {
  if (login.user && login.token) {
    return fail(misconfigured("two_credentials", "both user and token are set", "set one of them"));
  }
  for (Endpoint& endpoint : endpoints) {
    if (login.user) {
      endpoint.user = *login.user;
      endpoint.password = login.password;
      endpoint.token.clear();
    } else if (login.token) {
      endpoint.token = *login.token;
      endpoint.user.clear();
      endpoint.password.clear();
    }
  }
  return {};
}

/// A subject that others are put behind.
Result<void> check_prefix(std::string_view option, std::string_view prefix) {
  const auto problem = subject_problem(prefix);
  if (problem.empty()) return {};
  return fail(misconfigured("bad_prefix", fmt::format("{}: '{}': {}", option, prefix, problem),
                            "write a subject without wildcards, and without a dot at its end"));
}

Result<void> complete_places(Options& options) {
  if (!options.domain.empty() && !options.api_prefix.empty()) {
    return fail(misconfigured("contradiction", "both domain and api_prefix are set",
                              "set one of them: domain = \"hub\" is api_prefix = \"$JS.hub.API\""));
  }
  if (!options.domain.empty()) {
    if (!std::ranges::all_of(options.domain, legal_in_stream_name)) {
      return fail(misconfigured(
          "bad_name", fmt::format("domain: '{}' cannot be the name of one", options.domain),
          "names hold no spaces, dots, wildcards or slashes"));
    }
    options.api_prefix = fmt::format("$JS.{}.API", options.domain);
  }
  if (options.api_prefix.empty()) options.api_prefix = "$JS.API";
  if (auto checked = check_prefix("api_prefix", options.api_prefix); !checked) return checked;
  return check_prefix("inbox_prefix", options.inbox_prefix);
}

}  // namespace

void (*escape_of(const config::Values& values))(std::string& out, std::string_view value) {
  return values_have_levels(values) ? &escape_levels : &escape_token;
}

config::FieldTable sink_fields() {
  return kSinkFields;
}

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls) {
  const config::UrlForm form{kSchemes, "write it as nats://host:4222, or tls://host:4222"};
  auto found = config::parse_endpoints(urls, form);
  if (!found) return fail(found.error());
  std::vector<Endpoint> endpoints;
  for (config::Endpoint& place : *found) {
    if (!place.path.empty()) return fail(config::bad_url("it has a path", form));
    Endpoint endpoint{.host = std::move(place.host),
                      .address = std::move(place.address),
                      .tls = place.tls,
                      .user = {},
                      .password = {},
                      .token = {}};
    if (place.password) {
      endpoint.user = std::move(place.user);
      endpoint.password = std::move(*place.password);
    } else {
      endpoint.token = std::move(place.user);
    }
    endpoints.push_back(std::move(endpoint));
  }
  return endpoints;
}

Result<void> complete_connection(Options& options) {
  if (auto checked = config::check_tls(options); !checked) return checked;
  options.tls = options.tls || !options.tls_ca.empty() || !options.tls_cert.empty();
  if (auto checked = complete_places(options); !checked) return checked;
  const StreamLimits& limits = options.limits;
  if (limits.max_age && limits.duplicate_window && *limits.duplicate_window > *limits.max_age) {
    return fail(misconfigured("contradiction",
                              "stream_duplicate_window is longer than stream_max_age",
                              "lower stream_duplicate_window, or raise stream_max_age"));
  }
  return apply_login(options.login, options.endpoints);
}

Result<Options> parse_options(const config::Values& values,
                              const std::optional<std::string>& subject_template) {
  auto filled = config::filled<SinkValues>(kSinkOptions, values);
  if (!filled) return fail(filled.error());
  SinkValues& options = *filled;
  if (auto done = complete_connection(options); !done) return fail(done.error());
  if (const auto subject = default_subject(values); !subject) return fail(subject.error());
  if (!std::ranges::all_of(options.stream, legal_in_stream_name)) {
    return fail(misconfigured("bad_stream_name",
                              fmt::format("'{}' cannot be the name of a stream", options.stream),
                              "stream names hold no spaces, dots, wildcards or slashes"));
  }
  if (auto done = complete_stream_to_make(values, subject_template, options); !done) {
    return fail(done.error());
  }
  return Options(std::move(options));
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
