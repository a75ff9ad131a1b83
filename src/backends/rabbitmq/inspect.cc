// What `check` sees of sinks and sources: nothing is declared that is absent, nothing published and
// nothing consumed.

#include <fmt/core.h>

#include <utility>

#include "backends/rabbitmq/queue.h"
#include "backends/rabbitmq/sink.h"
#include "backends/rabbitmq/source.h"
#include "core/text.h"

namespace relay::rabbitmq {

namespace {

Result<void> reach(const ConnectionOptions& options, std::stop_token stop) {
  EndpointWalk walk;
  const auto connection = open_any(options, walk, std::move(stop));
  return connection ? Result<void>() : fail(connection.error());
}

/// A connection of its own: the broker ends one that asks for what is absent.
Result<bool> has_exchange(const ConnectionOptions& options, const std::string& name,
                          std::stop_token stop) {
  EndpointWalk walk;
  auto connection = open_any(options, walk, std::move(stop));
  if (!connection) return fail(connection.error());
  const auto found = (*connection)->declare_exchange(name, "direct", true);
  if (found) return true;
  if (found.error().code == "not_found") return false;
  return fail(found.error());
}

Result<bool> has_queue(const ConnectionOptions& options, const std::string& name,
                       std::stop_token stop) {
  EndpointWalk walk;
  auto connection = open_any(options, walk, std::move(stop));
  if (!connection) return fail(connection.error());
  const auto count = (*connection)->count_ready(name);
  if (!count) return fail(count.error());
  return count->has_value();
}

Error no_exchange(const ConnectionOptions& options, const std::string& name,
                  std::string_view type) {
  return misconfigured(
      "not_found",
      fmt::format("RabbitMQ at {} has no exchange '{}'", options.endpoints.front().address, name),
      fmt::format("rabbitmqadmin declare exchange name={} type={} durable=true; or correct the "
                  "exchange's name",
                  shell_word(name), shell_word(type)));
}

void inspect_default_exchange(const SinkOptions& options, const std::string& queue,
                              std::stop_token stop, Inspection& found) {
  const auto there = has_queue(options.connection, queue, std::move(stop));
  if (!there) {
    found.problems.push_back(there.error());
  } else if (!*there) {
    Error error = misconfigured(
        options.mandatory ? "unroutable" : "dropped",
        fmt::format("RabbitMQ at {} has no queue '{}': {}",
                    options.connection.endpoints.front().address, queue,
                    options.mandatory ? "messages cannot be routed" : "messages are dropped"),
        fmt::format("rabbitmqadmin declare queue name={} durable=true; or correct routing_key",
                    shell_word(queue)));
    (options.mandatory ? found.problems : found.warnings).push_back(std::move(error));
  }
}

/// Warns of an exchange that is there and has other properties than the options say: it is used as
/// it is. To declare one again changes nothing; a user who may not do that learns nothing.
void compare(const SinkOptions& options, std::stop_token stop, Inspection& found) {
  EndpointWalk walk;
  auto connection = open_any(options.connection, walk, std::move(stop));
  if (!connection) return;
  auto same =
      (*connection)
          ->declare_exchange(options.exchange, options.exchange_type, false, options.arguments);
  if (same || same.error().code != "precondition_failed") return;
  same.error().remedy = "it is used as it is: let exchange_type and arguments say the same";
  found.warnings.push_back(std::move(same.error()));
}

void inspect_exchange(const SinkOptions& options, std::stop_token stop, Inspection& found) {
  const bool makes_it = options.declare && !options.exchange.starts_with("amq.");
  const auto there = has_exchange(options.connection, options.exchange, stop);
  if (!there) {
    found.problems.push_back(there.error());
  } else if (*there && makes_it) {
    compare(options, std::move(stop), found);
  } else if (!*there && !makes_it) {
    found.problems.push_back(
        no_exchange(options.connection, options.exchange, options.exchange_type));
  } else if (!*there) {
    found.warnings.push_back(misconfigured(
        "unroutable",
        fmt::format("the exchange '{}' is made by the relay, and no queue is bound to it yet: {}",
                    options.exchange,
                    options.mandatory ? "the pipeline waits until one is"
                                      : "messages are dropped until one is"),
        fmt::format("rabbitmqadmin declare exchange name={0} type={1} durable=true; then "
                    "rabbitmqadmin declare binding source={0} destination=QUEUE "
                    "routing_key=KEY",
                    shell_word(options.exchange), shell_word(options.exchange_type))));
  }
}

}  // namespace

Inspection RabbitSink::inspect(const std::optional<std::string>& subject, std::stop_token stop) {
  Inspection found = Inspection::of(reach(options_.connection, stop));
  if (!found.problems.empty()) return found;
  if (!options_.exchange.empty()) {
    inspect_exchange(options_, std::move(stop), found);
  } else if (subject) {
    inspect_default_exchange(options_, *subject, std::move(stop), found);
  }
  return found;
}

Inspection RabbitSource::inspect(std::stop_token stop) {
  Inspection found;
  const auto there = has_queue(options_.connection, options_.queue, stop);
  if (!there) {
    found.problems.push_back(there.error());
    return found;
  }
  if (!*there && options_.declare) {
    found.notes.push_back(fmt::format("the queue '{}' is made by the relay", options_.queue));
  } else if (!*there) {
    found.problems.push_back(misconfigured(
        "not_found",
        fmt::format("RabbitMQ at {} has no queue '{}'",
                    options_.connection.endpoints.front().address, options_.queue),
        fmt::format("rabbitmqadmin declare queue name={} durable=true; or correct queue, or set "
                    "declare to true",
                    shell_word(options_.queue))));
  }
  for (const auto& [exchange, key] : options_.bindings) {
    const auto bound = has_exchange(options_.connection, exchange, stop);
    if (!bound) {
      found.problems.push_back(bound.error());
    } else if (!*bound) {
      found.problems.push_back(no_exchange(options_.connection, exchange, "topic"));
    }
  }
  return found;
}

std::vector<Claim> RabbitSource::claims() const {
  if (is_stream() || options_.queue_type == "stream") return {};
  Claim claim{.what = fmt::format("the queue '{}'", options_.queue),
              .servers = {},
              .effect = "each of them gets some of the messages only (unless it is a stream)",
              .remedy = "give each pipeline a queue of its own, bound to the same exchange",
              .shared = true};
  for (const Endpoint& endpoint : options_.connection.endpoints) {
    claim.servers.push_back(fmt::format("{} {}", endpoint.address, endpoint.vhost));
  }
  return {std::move(claim)};
}

}  // namespace relay::rabbitmq
