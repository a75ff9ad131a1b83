#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/nats/connection.h"
#include "backends/nats/options.h"
#include "connector/endpoint_walk.h"
#include "connector/sink.h"

namespace relay::nats {

/// Publishes to JetStream. Delivered means that the stream's acknowledgement came. Messages are
/// under way by the thousand on one connection, which keeps their order; where a stream could store
/// a later message after it lost an earlier one, at most one of a key is. A broken or silent
/// connection is replaced by a new one at the next delivery: what was under way is `unknown`, and
/// the same ids sent again are duplicates to the stream.
class NatsSink : public Sink {
 public:
  explicit NatsSink(Options options) : options_(std::move(options)) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;

  bool usable() const { return connection_ && !connection_->closed(); }
  Result<void> check_stream();
  Result<void> make_stream_where_none_is();
  void explain_missing_streams(std::span<Outcome> outcomes) const;
  void learn_stream();
  bool one_of_a_key() const;

  const Options options_;
  EndpointWalk endpoints_;
  std::unique_ptr<Connection> connection_;
  std::optional<StreamFacts> facts_;
};

}  // namespace relay::nats
