#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/webhook/attempts.h"
#include "backends/webhook/oauth2.h"
#include "backends/webhook/options.h"
#include "backends/webhook/send_order.h"
#include "connector/sink.h"
#include "http/client.h"

namespace relay::webhook {

/// Sends messages over HTTP: one a request, or arrays of them. Delivered means that a success
/// status came. A server may take a later message after it refused an earlier one, so at most one
/// of a key is under way. What got no clear answer is `unknown` and is sent again with the same id;
/// an array that was rejected is halved until the poison is alone. A message that was refused
/// `max_attempts` times is rejected.
class WebhookSink : public Sink {
 public:
  explicit WebhookSink(Options options)
      : options_(std::move(options)), attempts_(options_.max_attempts) {}

  /// Makes ready; whether the server answers, the first delivery shows.
  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;

  std::vector<Run> cut(std::span<const Message> messages, std::span<const Outcome> outcomes);

  const Options options_;
  Attempts attempts_;
  std::unique_ptr<http::Client> client_;
  AccessToken token_;  // in use with oauth2_token_url
  /// Arrays that were sent and got no answer, by the id of their first message: how many messages.
  /// Sent again, they are cut the same, so that their ids are the same.
  std::map<std::string, std::size_t, std::less<>> open_cuts_;
};

}  // namespace relay::webhook
