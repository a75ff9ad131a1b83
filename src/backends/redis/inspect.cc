// What `check` sees of sinks and sources: nothing here makes a stream, a group or a consumer.

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "backends/redis/connection.h"
#include "backends/redis/errors.h"
#include "backends/redis/sink.h"
#include "backends/redis/source.h"
#include "core/stop_event.h"
#include "core/text.h"

namespace relay::redis {

namespace {

Result<std::unique_ptr<Connection>> reach(const ConnectionOptions& options, int stop_fd) {
  EndpointWalk walk;
  return open_any(options, walk, true, stop_fd);
}

/// The type of what a key holds, "none" where there is nothing. Empty: the user may not know it.
Result<std::string> type_of(Connection& connection, const std::string& key,
                            const ConnectionOptions& options, int stop_fd) {
  const auto reply =
      connection.call({"TYPE", key}, Deadline::after(options.response_timeout), stop_fd);
  if (!reply) return fail(reply.error());
  return reply->is_error() ? std::string() : reply->text;
}

Error no_stream(const std::string& key, const std::string& type, const std::string& address) {
  return misconfigured(
      "wrong_type",
      fmt::format("the key '{}' of Redis at {} holds a {}, and no stream", key, address, type),
      fmt::format("rename it (redis-cli RENAME {} NEW-NAME), or correct stream_key",
                  shell_word(key)));
}

bool has_group(const Reply& groups, const std::string& name) {
  return std::ranges::any_of(groups.elements, [&](const Reply& group) {
    for (std::size_t i = 0; i + 1 < group.elements.size(); i += 2) {
      if (group.elements[i].text == "name") return group.elements[i + 1].text == name;
    }
    return false;
  });
}

void inspect_group(Connection& connection, const SourceOptions& options, int stop_fd,
                   Inspection& found) {
  const auto groups =
      connection.call({"XINFO", "GROUPS", options.stream_key},
                      Deadline::after(options.connection.response_timeout), stop_fd);
  if (!groups) {
    found.problems.push_back(groups.error());
  } else if (!groups->is_error() && !has_group(*groups, options.group)) {
    found.notes.push_back(
        fmt::format("the group '{}' of the stream '{}' is made by the relay, and begins at {}",
                    options.group, options.stream_key, options.start));
  }
}

Claim claim_of(const SourceOptions& options, std::string what) {
  Claim claim{.what = std::move(what),
              .servers = {},
              .effect = "each of them gets some of the messages only",
              .remedy = "give each pipeline a group of its own"};
  for (const Endpoint& endpoint : options.connection.endpoints) {
    claim.servers.push_back(fmt::format("{}/{}", endpoint.address, endpoint.database));
  }
  return claim;
}

}  // namespace

Inspection RedisSink::inspect(const std::optional<std::string>& subject, std::stop_token stop) {
  const StopEvent stopped(std::move(stop));
  Inspection found;
  const auto connection = reach(options_.connection, stopped.fd());
  if (!connection) {
    found.problems.push_back(connection.error());
    return found;
  }
  if (!subject) return found;
  const auto type = type_of(**connection, *subject, options_.connection, stopped.fd());
  if (!type) {
    found.problems.push_back(type.error());
  } else if (*type == "none") {
    found.notes.push_back(fmt::format("the stream '{}' begins with the first message", *subject));
  } else if (!type->empty() && *type != "stream") {
    found.problems.push_back(no_stream(*subject, *type, (*connection)->address()));
  }
  return found;
}

Inspection RedisSource::inspect(std::stop_token stop) {
  const StopEvent stopped(std::move(stop));
  Inspection found;
  const auto connection = reach(options_.connection, stopped.fd());
  if (!connection) {
    found.problems.push_back(connection.error());
    return found;
  }
  const auto type = type_of(**connection, options_.stream_key, options_.connection, stopped.fd());
  if (!type) {
    found.problems.push_back(type.error());
  } else if (*type == "none") {
    found.notes.push_back(
        fmt::format("the stream '{}', which is not there, and its group '{}' are "
                    "made by the relay",
                    options_.stream_key, options_.group));
  } else if (*type == "stream") {
    inspect_group(**connection, options_, stopped.fd(), found);
  } else if (!type->empty()) {
    found.problems.push_back(no_stream(options_.stream_key, *type, (*connection)->address()));
  }
  return found;
}

/// Members of a group share its messages; two of one name take each other's for their own.
std::vector<Claim> RedisSource::claims() const {
  Claim member =
      claim_of(options_, fmt::format("the consumer '{}' of the group '{}' of the stream "
                                     "'{}'",
                                     options_.consumer, options_.group, options_.stream_key));
  member.effect = "each of them takes messages for its own that the other one has in work";
  Claim group = claim_of(options_, fmt::format("the group '{}' of the stream '{}'", options_.group,
                                               options_.stream_key));
  group.shared = true;
  return {std::move(member), std::move(group)};
}

}  // namespace relay::redis
