#include "backends/rabbitmq/sink.h"

#include <sys/socket.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "backends/rabbitmq/delivery.h"
#include "core/stop_event.h"

namespace relay::rabbitmq {

namespace {

std::vector<Message> picked(std::span<const Message> messages,
                            std::span<const std::size_t> indices) {
  std::vector<Message> found;
  found.reserve(indices.size());
  for (const std::size_t index : indices) found.push_back(messages[index]);
  return found;
}

}  // namespace

Result<void> RabbitSink::open(std::stop_token stop) {
  close();
  auto connection = open_any(options_.connection, endpoints_, stop);
  if (!connection) return fail(connection.error());
  connection_ = std::move(*connection);
  confirms_ = Confirms();
  Result<void> prepared;
  const auto found = find_exchange();
  if (!found) {
    prepared = fail(found.error());
  } else if (!*found) {
    prepared = make_exchange(std::move(stop));
  }
  if (prepared) prepared = connection_->want_confirms();
  if (prepared) prepared = connection_->end_with(lease());
  if (!prepared) close();
  return prepared;
}

/// False: it is absent and may be made; the connection is of no use any more. An exchange that is
/// there is used as it is, and needs no permission to declare.
Result<bool> RabbitSink::find_exchange() {
  if (options_.exchange.empty()) return true;
  const auto found = connection_->declare_exchange(options_.exchange, options_.exchange_type, true);
  if (found) return true;
  // The exchanges of the broker's own cannot be declared.
  const bool may_make = options_.declare && !options_.exchange.starts_with("amq.");
  if (may_make && found.error().code == "not_found") return false;
  return fail(found.error());
}

Result<void> RabbitSink::make_exchange(std::stop_token stop) {
  auto connection = open_any(options_.connection, endpoints_, std::move(stop));
  if (!connection) return fail(connection.error());
  connection_ = std::move(*connection);
  return connection_->declare_exchange(options_.exchange, options_.exchange_type, false,
                                       options_.arguments);
}

bool RabbitSink::still_good() {
  if (!connection_ || confirms_.in_flight() > 0) return false;
  while (true) {
    // What the broker said between two deliveries: mostly that it ended the connection.
    const auto notice = connection_->next_notice();
    if (!notice) return false;
    if (!*notice) return true;
    if (std::holds_alternative<ChannelClosed>(**notice)) return false;
  }
}

bool RabbitSink::one_of_a_key() const {
  if (!ordered_ || options_.key_order == KeyOrder::pipelined) return false;
  return options_.key_order == KeyOrder::one || refusals_seen_;
}

std::vector<Outcome> RabbitSink::deliver(std::span<const Message> messages, Deadline deadline,
                                         std::stop_token stop) {
  std::vector<Outcome> outcomes(messages.size());
  std::vector<std::size_t> open(messages.size());
  std::iota(open.begin(), open.end(), std::size_t{0});
  const StopEvent stopped(stop);
  SharedError failure;
  std::size_t alone = 0;
  while (!open.empty() && !failure) {
    if (!still_good()) {
      if (auto opened = this->open(stop); !opened) {
        failure = share(opened.error());
        break;
      }
    }
    std::vector<Message> copies;
    if (open.size() < messages.size()) copies = picked(messages, open);
    const auto part = copies.empty() ? messages : std::span<const Message>(copies);
    Delivery delivery(*connection_, confirms_, {options_, one_of_a_key(), alone, lease()}, part,
                      deadline, stopped.fd());
    {
      // The library may wait for the broker to take the rest of a large message.
      const std::stop_callback end(
          stop, [socket = connection_->socket()] { ::shutdown(socket, SHUT_RDWR); });
      delivery.run();
    }
    refusals_seen_ = refusals_seen_ || delivery.refused();
    const auto suspects = delivery.suspects();
    failure = suspects.empty() ? delivery.failure() : nullptr;
    if (suspects.size() == 1) {
      delivery.outcomes()[suspects[0]] = Outcome::rejected(delivery.failure());
    }
    const std::size_t suspected = suspects.size() > 1 ? suspects.back() + 1 : 0;
    std::vector<std::size_t> still_open;
    alone = 0;
    for (std::size_t i = 0; i < open.size(); ++i) {
      auto& outcome = delivery.outcomes()[i];
      if (outcome) {
        outcomes[open[i]] = std::move(*outcome);
      } else {
        still_open.push_back(open[i]);
        if (i < suspected) ++alone;
      }
    }
    open = std::move(still_open);
  }
  for (const std::size_t index : open) outcomes[index] = Outcome::unknown(failure);
  return outcomes;
}

void RabbitSink::close() {
  connection_.reset();
}

}  // namespace relay::rabbitmq
