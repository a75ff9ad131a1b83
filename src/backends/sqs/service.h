#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "aws/credentials.h"
#include "backends/sqs/options.h"
#include "core/deadline.h"
#include "http/client.h"

namespace relay::sqs {

/// SQS's JSON protocol: signed requests for one queue. One thread.
class Service {
 public:
  /// Its connections end with the lease.
  explicit Service(const QueueOptions& options, Lease& lease = Lease::endless());

  /// Credentials, a region, and a look at the queue: that it is there and lets us in. A policy that
  /// forbids looking at its attributes is no error.
  Result<void> open(Deadline deadline, std::stop_token stop);

  /// Reads the queue's MaximumMessageSize again. Not while requests are in flight.
  Result<void> look(Deadline deadline, std::stop_token stop);
  /// The MaximumMessageSize that was read last. Nothing: the queue does not tell it, or not us.
  std::optional<std::size_t> largest_message() const { return largest_message_; }

  /// Makes sure that credentials are good for the next minutes.
  Result<void> renew(Deadline deadline, std::stop_token stop);
  /// The service refused them as too old.
  void forget_credentials() { keys_.forget(); }

  /// Begins `action` with that JSON body; the answer comes from `wait`.
  void start(std::size_t token, std::string_view action, std::string body,
             std::chrono::milliseconds timeout);
  void wait(std::vector<http::Response>& responses, Deadline deadline, std::stop_token stop) {
    client_.wait(responses, deadline, std::move(stop));
  }
  std::size_t in_flight() const { return client_.in_flight(); }
  void cancel_all() { client_.cancel_all(); }

  /// One action alone. An error: no answer, or one that is none.
  Result<std::string> call(std::string_view action, std::string body,
                           std::chrono::milliseconds timeout, Deadline deadline,
                           std::stop_token stop);

  /// "SQS queue orders at https://sqs.eu-west-1.amazonaws.com".
  const std::string& where() const { return where_; }

 private:
  http::Request make_request(std::string_view action, std::string body,
                             std::chrono::milliseconds timeout);

  const QueueOptions& options_;
  std::string where_;
  std::string region_;
  aws::Keys keys_;
  aws::Credentials credentials_;
  std::optional<std::size_t> largest_message_;
  http::Client client_;
};

}  // namespace relay::sqs
