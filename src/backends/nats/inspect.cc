// What `check` sees of sinks and sources: nothing here makes a stream or a consumer.

#include <fmt/core.h>
#include <nats/nats.h>

#include <algorithm>
#include <memory>

#include "backends/nats/connection.h"
#include "backends/nats/errors.h"
#include "backends/nats/sink.h"
#include "backends/nats/source.h"
#include "core/text.h"

namespace relay::nats {

namespace {

template <auto destroy>
struct Free {
  template <class T>
  void operator()(T* object) const {
    destroy(object);
  }
};
using ConsumerInfo = std::unique_ptr<jsConsumerInfo, Free<&jsConsumerInfo_Destroy>>;

Error no_stream_over(const std::string& subject, const Options& options) {
  const std::string name =
      options.new_stream.empty() ? subject.substr(0, subject.find('.')) : options.new_stream;
  return misconfigured(
      "no_stream", fmt::format("no JetStream stream takes the subject '{}'", subject),
      fmt::format("nats stream add {} --subjects {}; or set create_stream and stream",
                  shell_word(name), shell_word(subject)));
}

/// Whether the stream that is named, and is there, takes the subject.
Result<void> takes(Connection& connection, const std::string& stream, const std::string& subject) {
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Info.SubjectsFilter = subject.c_str();
  jsStreamNamesList* found = nullptr;
  jsErrCode code{};
  const natsStatus status = js_StreamNames(&found, connection.jetstream(), &options, &code);
  const std::unique_ptr<jsStreamNamesList, Free<&jsStreamNamesList_Destroy>> names(found);
  // A user who may not ask goes on as it is.
  if (status != NATS_OK && status != NATS_NOT_FOUND) return {};
  for (int i = 0; names && i < names->Count; ++i) {
    if (stream == names->List[i]) return {};
  }
  return fail(misconfigured(
      "no_stream",
      fmt::format("the stream '{}' at {} does not take the subject '{}'", stream,
                  connection.address(), subject),
      fmt::format("add it to the stream's subjects: nats stream edit {} --subjects '...'; or "
                  "correct subject",
                  shell_word(stream))));
}

/// What would make the existing consumer of no use, or nothing.
std::optional<Error> unfit(const jsConsumerConfig& config, const SourceOptions& options) {
  const std::string_view pushes_to = config.DeliverSubject == nullptr ? "" : config.DeliverSubject;
  const std::string_view filter = config.FilterSubject == nullptr ? "" : config.FilterSubject;
  std::string why;
  if (!pushes_to.empty()) {
    why = "pushes its messages; it has to be a pull consumer";
  } else if (config.AckPolicy != js_AckExplicit) {
    why = "does not take explicit acknowledgements";
  } else if (!options.subject.empty() && filter != options.subject) {
    why = fmt::format("has the filter '{}', not '{}'", filter, options.subject);
  } else {
    return std::nullopt;
  }
  return misconfigured(
      "unfit_consumer",
      fmt::format("consumer '{}' of stream '{}' {}", options.consumer, options.stream, why),
      "name another consumer, or delete this one: the relay makes it");
}

void inspect_consumer(Connection& connection, const SourceOptions& options, Inspection& found) {
  jsConsumerInfo* raw = nullptr;
  jsErrCode code = {};
  const natsStatus status = js_GetConsumerInfo(&raw, connection.jetstream(), options.stream.c_str(),
                                               options.consumer.c_str(), nullptr, &code);
  const ConsumerInfo info(raw);
  if (status == NATS_NOT_FOUND || code == JSConsumerNotFoundErr) {
    found.notes.push_back(fmt::format("the consumer '{}' of the stream '{}' is made by the relay",
                                      options.consumer, options.stream));
  } else if (status != NATS_OK) {
    found.problems.push_back(stream_error(status, static_cast<int>(code),
                                          nats_GetLastError(nullptr), options.stream,
                                          connection.address())
                                 .in_context("looking for the consumer"));
  } else if (auto error = unfit(*info->Config, options)) {
    found.problems.push_back(std::move(*error));
  }
}

/// A connection to the first server that serves.
Result<std::unique_ptr<Connection>> reach(const Options& options) {
  EndpointWalk walk;
  return walk.open_first(options.endpoints, [&](const Endpoint& endpoint) {
    return Connection::open(options, endpoint);
  });
}

}  // namespace

Inspection NatsSink::inspect(const std::optional<std::string>& subject, std::stop_token stop) {
  Inspection found = Inspection::of(open(std::move(stop)));
  if (!connection_) return found;
  const bool named = !options_.stream.empty();
  const std::string wanted =
      subject ? *subject
              : (named || options_.stream_subjects.empty() ? "" : options_.stream_subjects.front());
  if (named && facts_) {
    if (subject)
      found.problems = Inspection::of(takes(*connection_, options_.stream, *subject)).problems;
  } else if (named) {
    found.notes.push_back(fmt::format("the stream '{}' is made by the relay", options_.stream));
  } else if (!wanted.empty()) {
    const auto taken = connection_->has_stream_over(wanted);
    if (taken && !*taken && options_.create_stream) {
      found.notes.push_back(
          fmt::format("no stream takes '{}': the stream '{}' is made by the relay", wanted,
                      options_.new_stream));
    } else if (taken && !*taken && subject) {
      found.problems.push_back(no_stream_over(*subject, options_));
    }
  }
  close();
  return found;
}

Inspection NatsSource::inspect(std::stop_token) {
  Inspection found;
  const auto connection = reach(options_.connection);
  if (!connection) {
    found.problems.push_back(connection.error());
    return found;
  }
  const auto facts = (*connection)->stream_facts(options_.stream);
  if (facts) {
    inspect_consumer(**connection, options_, found);
  } else if (facts.error().code == "no_stream" && options_.connection.create_stream) {
    found.notes.push_back(fmt::format("the stream '{}' is made by the relay", options_.stream));
  } else {
    Error error = facts.error();
    if (error.code == "no_stream") {
      error.remedy = fmt::format(
          "nats stream add {} --subjects {}; or correct stream", shell_word(options_.stream),
          options_.subject.empty() ? "SUBJECTS" : shell_word(options_.subject));
    }
    found.problems.push_back(std::move(error));
  }
  return found;
}

std::vector<Claim> NatsSource::claims() const {
  Claim claim{.what = fmt::format("the consumer '{}' of the stream '{}'", options_.consumer,
                                  options_.stream),
              .servers = {},
              .effect = "each of them gets some of the messages only",
              .remedy = "give each pipeline a consumer of its own"};
  for (const Endpoint& endpoint : options_.connection.endpoints) {
    claim.servers.push_back(endpoint.address);
  }
  return {std::move(claim)};
}

}  // namespace relay::nats
