#include "backends/nats/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "backends/nats/errors.h"
#include "config/tls.h"
#include "connector/in_flight_window.h"
#include "connector/key_gate.h"
#include "core/log.h"

namespace relay::nats {

namespace {

/// So many messages go into one write, without waiting for more.
constexpr std::size_t kGatherMessages = 64;

Error error(ErrorClass error_class, std::string code, std::string message,
            std::string remedy = {}) {
  return {error_class, std::move(code), std::move(message), std::move(remedy), {}};
}

}  // namespace

/// Publishes some messages over one connection and waits for what becomes of them.
class NatsSink::Delivery {
 public:
  Delivery(Connection& connection, const Options& options, std::span<const Message> messages,
           bool one_of_a_key, const Lease& lease, Deadline deadline, std::stop_token stop)
      : connection_(connection),
        known_(connection.outcomes()),
        options_(options),
        messages_(messages),
        one_of_a_key_(one_of_a_key),
        gate_(messages, one_of_a_key),
        lease_(lease),
        window_({.messages = options.max_in_flight, .silence = options.ack_timeout}, deadline),
        stop_(std::move(stop)) {}

  /// Writes an outcome for each message. Not null: why the connection should be given up.
  SharedError run(std::span<Outcome> outcomes) {
    known_.begin(messages_.size(), one_of_a_key_);
    while (!ended()) {
      if (!state_.failure) fill();
      wait();
    }
    auto known = known_.end();
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      outcomes[i] = known[i] ? std::move(*known[i]) : Outcome::unknown(why());
    }
    return given_up_;
  }

 private:
  bool ended() {
    note(known_.state());
    if (state_.broken) {
      given_up_ = state_.failure;
      return true;
    }
    if (stop_.stop_requested()) {
      cause_ = share(error(ErrorClass::cancelled, "stopped", "stopped before the acknowledgement"));
      return true;
    }
    switch (window_.verdict(SteadyClock::now())) {
      case InFlightWindow::Verdict::silent:
        given_up_ = share(error(ErrorClass::transient, "ack_timeout",
                                fmt::format("NATS at {} did not acknowledge within {} ms",
                                            connection_.address(), options_.ack_timeout.count()),
                                "if this stays, look at the server's load and disk"));
        return true;
      case InFlightWindow::Verdict::late:
        cause_ = share(error(ErrorClass::transient, "deadline",
                             fmt::format("NATS at {} is too slow", connection_.address()),
                             "nothing is lost: the relay goes on"));
        return true;
      case InFlightWindow::Verdict::wait:
        break;
    }
    return window_.empty() && (exhausted_ || state_.failure != nullptr);
  }

  void note(Outcomes::State state) {
    state_ = std::move(state);
    window_.set(state_.load);
  }

  SharedError why() const {
    if (given_up_) return given_up_;
    return cause_ ? cause_ : state_.failure;
  }

  /// Sends as many as may be under way.
  void fill() {
    while (!state_.failure && !exhausted_ && window_.has_room()) {
      if (!lease_.holds()) {
        cause_ = share(lease_over());
        exhausted_ = true;
        return;
      }
      const std::size_t gathered = gather();
      if (gathered == 0) return;
      if (auto sent = connection_.send(); !sent) {
        known_.broke(share(std::move(sent.error())));
        return;
      }
      // The true figures can only be lower: they are asked for again at the limit.
      if (!window_.has_room()) note(known_.state());
    }
  }

  /// Makes some messages ready; how many.
  std::size_t gather() {
    const auto now = SteadyClock::now();
    std::size_t gathered = 0;
    while (gathered < kGatherMessages && window_.has_room()) {
      const std::ptrdiff_t next = gate_.next();
      if (next < 0) {
        exhausted_ = !one_of_a_key_ || window_.empty();
        break;
      }
      const auto index = static_cast<std::size_t>(next);
      if (auto added = connection_.add(messages_[index], index); !added) {
        known_.settle(index, Outcome::rejected(share(std::move(added.error()))));
        continue;
      }
      ++gathered;
      window_.sent(messages_[index].body.size(), now);
    }
    return gathered;
  }

  void wait() {
    const bool more = !exhausted_ && !state_.failure;
    note(known_.state());
    if (!window_.empty()) {
      // Woken for each message where others wait behind it, else when half of them are through.
      const std::size_t wanted = !more           ? 0
                                 : one_of_a_key_ ? window_.messages() - 1
                                                 : options_.max_in_flight / 2;
      note(known_.wait(wanted, window_.until().at(), stop_));
    }
    for (const std::size_t message : known_.take_finished()) gate_.finished(message);
  }

  Connection& connection_;
  Outcomes& known_;
  const Options& options_;
  std::span<const Message> messages_;
  const bool one_of_a_key_;
  KeyGate gate_;
  const Lease& lease_;
  InFlightWindow window_;
  std::stop_token stop_;
  Outcomes::State state_;
  bool exhausted_ = false;  // every message was published, or settled
  SharedError given_up_;
  SharedError cause_;
};

Result<void> NatsSink::open(std::stop_token stop) {
  close();
  facts_.reset();
  const auto connect = [&](const Endpoint& endpoint) -> Result<std::unique_ptr<Connection>> {
    if (stop.stop_requested()) {
      return fail(error(ErrorClass::cancelled, "stopped", "stopped while connecting to NATS"));
    }
    return Connection::open(options_, endpoint, lease());
  };
  auto connection = endpoints_.open_first(options_.endpoints, connect);
  if (!connection) return fail(connection.error());
  connection_ = std::move(*connection);
  auto checked = check_stream();
  if (!checked) close();
  return checked;
}

Result<void> NatsSink::check_stream() {
  if (!options_.tls_verify) {
    config::warn_of_no_verification(options_.pipeline, connection_->address());
  }
  if (options_.stream.empty()) return make_stream_where_none_is();
  auto facts = connection_->stream_facts(options_.stream);
  if (!facts && options_.create_stream && facts.error().code == "no_stream") {
    if (options_.looks_only) return {};
    log::info("stream_made", options_.pipeline, "there is no stream {}: it is made",
              options_.stream);
    auto created = connection_->create_stream(options_.stream, options_);
    if (!created) return created;
    facts = connection_->stream_facts(options_.stream);
  }
  if (!facts && facts.error().code == "no_stream") {
    return fail(no_stream(options_.stream, options_.stream_subjects, connection_->address()));
  }
  if (!facts) return fail(facts.error());
  facts_ = *facts;
  return {};
}

/// Where no stream is named, and none takes the subjects, one is made. Users that may not ask go on
/// as they are.
Result<void> NatsSink::make_stream_where_none_is() {
  if (!options_.create_stream || options_.looks_only) return {};
  const auto taken = connection_->has_stream_over(options_.stream_subjects.front());
  if (!taken || *taken) return {};
  log::info("stream_made", options_.pipeline, "no stream takes {}: the stream {} is made",
            options_.stream_subjects.front(), options_.new_stream);
  return connection_->create_stream(options_.new_stream, options_);
}

/// Where it is known what all subjects of this pipeline are, the remedy is a stream for all of
/// them.
void NatsSink::explain_missing_streams(std::span<Outcome> outcomes) const {
  if (options_.new_stream.empty()) return;
  for (Outcome& outcome : outcomes) {
    if (!outcome.error || outcome.error->code != "no_stream") continue;
    Error explained = *outcome.error;
    explained.remedy =
        no_stream(options_.new_stream, options_.stream_subjects, connection_->address()).remedy;
    outcome.error = share(std::move(explained));
  }
}

/// Asks about the stream that acknowledged first. What cannot be learnt is taken to be strict.
void NatsSink::learn_stream() {
  const std::string stream = connection_->outcomes().stream();
  if (stream.empty()) return;
  const auto facts = connection_->stream_facts(stream);
  if (!facts) {
    log::warn("stream_not_known", options_.pipeline,
              "{}; at most one message of a key is under way until that is known; set key_order to "
              "decide it",
              facts.error().message);
  }
  facts_ = facts ? *facts : StreamFacts{.replicas = 1, .refuses_when_full = true};
}

bool NatsSink::one_of_a_key() const {
  if (options_.key_order != KeyOrder::automatic) return options_.key_order == KeyOrder::one;
  return !facts_ || facts_->may_leave_gaps();
}

std::vector<Outcome> NatsSink::deliver(std::span<const Message> messages, Deadline deadline,
                                       std::stop_token stop) {
  std::vector<Outcome> outcomes(messages.size());
  SharedError failure;
  if (!usable()) {
    if (auto opened = open(stop); !opened) failure = share(opened.error());
  }
  std::size_t done = 0;
  while (!failure && done < messages.size()) {
    // Which stream it is, the first acknowledgement says: so the first message goes alone.
    const bool first = options_.key_order == KeyOrder::automatic && !facts_;
    const std::size_t count = first ? 1 : messages.size() - done;
    const auto part = std::span(outcomes).subspan(done, count);
    failure = Delivery(*connection_, options_, messages.subspan(done, count), one_of_a_key(),
                       lease(), deadline, stop)
                  .run(part);
    const auto open_end = std::ranges::find(part, Outcome::Kind::unknown, &Outcome::kind);
    if (open_end != part.end()) explain_missing_streams(std::span(open_end, part.end()));
    if (failure) close();
    done += count;
    if (!failure && open_end != part.end()) failure = open_end->error;
    if (first && !failure) learn_stream();
  }
  for (; done < messages.size(); ++done) outcomes[done] = Outcome::unknown(failure);
  return outcomes;
}

void NatsSink::close() {
  connection_.reset();
}

}  // namespace relay::nats
