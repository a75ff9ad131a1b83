#include "backends/sqs/sink.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "backends/sqs/batch_answer.h"
#include "backends/sqs/entry.h"
#include "backends/sqs/errors.h"
#include "connector/key_gate.h"
#include "core/log.h"
#include "core/text.h"

namespace relay::sqs {

namespace {

constexpr std::size_t kMostEntries = 10;
constexpr std::size_t kUsualAttributeBytes = 2048;  // attributes rarely add more to a body
constexpr std::chrono::seconds kLookEvery{10};      // for a limit that was raised

SharedError shared(ErrorClass error_class, std::string code, std::string message) {
  return share(Error{error_class, std::move(code), std::move(message), {}, {}});
}

}  // namespace

/// Sends some messages and waits for what becomes of them.
class SqsSink::Delivery {
 public:
  Delivery(const SinkOptions& options, const SizeLimit& limit, Service& service,
           std::span<const Message> messages, std::span<Outcome> outcomes, const Lease& lease,
           Deadline deadline, std::stop_token stop)
      : options_(options),
        limit_(limit),
        service_(service),
        messages_(messages),
        outcomes_(outcomes),
        gate_(messages, options.ordered),
        lease_(lease),
        deadline_(deadline),
        stop_(std::move(stop)) {}

  void run() {
    std::vector<http::Response> responses;
    while (true) {
      if (!halted_ && !lease_.holds()) {
        cause_ = share(lease_over());
        halted_ = true;
      }
      while (!halted_ && lease_.holds() && service_.in_flight() < options_.max_in_flight &&
             start_request()) {
      }
      if (service_.in_flight() == 0) break;
      responses.clear();
      service_.wait(responses, deadline_, stop_);
      for (const http::Response& response : responses) settle(response);
      if (responses.empty() && (stop_.stop_requested() || deadline_.passed())) {
        cause_ = stop_.stop_requested()
                     ? shared(ErrorClass::cancelled, "stopped", "stopped before the answer")
                     : shared(ErrorClass::transient, "deadline", service_.where() + " is too slow");
        service_.cancel_all();
        break;
      }
    }
    for (Outcome& outcome : outcomes_) {
      if (outcome.kind == Outcome::Kind::unknown && !outcome.error) outcome.error = cause_;
    }
  }

 private:
  using Members = std::vector<std::size_t>;  // messages of one request, by index

  /// Sends what was put back to be sent apart, else the next messages. False: there are none now.
  bool start_request() {
    if (!apart_.empty()) {
      const Members members = std::move(apart_.back());
      apart_.pop_back();
      std::string body = begin_body();
      for (std::size_t i = 0; i < members.size(); ++i) {
        append(body, i, make_entry(messages_[members[i]], options_, limit_)->fields);
      }
      send(members, std::move(body));
      return true;
    }
    Members members;
    std::size_t bytes = 0;
    std::string body = begin_body();
    while (members.size() < kMostEntries) {
      if (!held_ && !take_next()) break;
      if (!members.empty() && bytes + held_->entry.bytes > kLargestBytes) break;
      bytes += held_->entry.bytes;
      append(body, members.size(), held_->entry.fields);
      members.push_back(held_->message);
      held_.reset();
    }
    if (members.empty()) return false;
    send(members, std::move(body));
    return true;
  }

  /// The next message that may be sent, as an entry, into `held_`. False: there is none now.
  bool take_next() {
    while (true) {
      const std::ptrdiff_t next = gate_.next();
      if (next < 0) return false;
      const auto index = static_cast<std::size_t>(next);
      auto entry = make_entry(messages_[index], options_, limit_);
      if (entry) {
        held_ = Held{index, std::move(*entry)};
        return true;
      }
      outcomes_[index] = Outcome::rejected(share(std::move(entry.error())));
      gate_.finished(index);
    }
  }

  std::string begin_body() const {
    std::string body;
    body.reserve(4096);
    body += R"({"QueueUrl":)";
    append_json_string(body, options_.queue.queue_url);
    body += R"(,"Entries":[)";
    return body;
  }

  static void append(std::string& body, std::size_t id, std::string_view fields) {
    if (id > 0) body += ',';
    body += R"({"Id":")";
    body += static_cast<char>('0' + id);
    body += '"';
    body += fields;
    body += '}';
  }

  void send(Members members, std::string body) {
    body += "]}";
    const std::size_t token = next_token_++;
    under_way_.emplace(token, std::move(members));
    service_.start(token, "SendMessageBatch", std::move(body),
                   std::min(options_.queue.timeout, deadline_.left()));
  }

  void settle(const http::Response& response) {
    const auto found = under_way_.find(response.token);
    const Members members = std::move(found->second);
    under_way_.erase(found);
    if (response.error) return all_unknown(members, response.error);
    if (response.status != 200) {
      return refused(members, response_error(service_.where(), response));
    }
    auto answer = parse_batch_answer(response.body, service_.where(), members.size());
    if (!answer) return all_unknown(members, share(std::move(answer.error())));
    for (std::size_t i = 0; i < members.size(); ++i) settle_one(members[i], (*answer)[i]);
  }

  void settle_one(std::size_t message, const std::optional<Error>& error) {
    if (!error) {
      outcomes_[message] = Outcome::delivered();
    } else if (error->error_class == ErrorClass::rejected) {
      outcomes_[message] = Outcome::rejected(share(*error));
    } else {
      return all_unknown({message}, share(*error));
    }
    gate_.finished(message);
  }

  /// The service refused a request as a whole.
  void refused(const Members& members, Error error) {
    if (is_expired_token(error.code)) {
      service_.forget_credentials();
      error.error_class = ErrorClass::transient;
    }
    if (error.error_class != ErrorClass::rejected) {
      return all_unknown(members, share(std::move(error)));
    }
    if (members.size() == 1) {
      outcomes_[members[0]] = Outcome::rejected(share(std::move(error)));
      gate_.finished(members[0]);
      return;
    }
    // One of them is the cause: which one, each half shows.
    const auto half = members.begin() + static_cast<std::ptrdiff_t>(members.size() / 2);
    apart_.emplace_back(half, members.end());
    apart_.emplace_back(members.begin(), half);
  }

  void all_unknown(const Members& members, const SharedError& error) {
    for (const std::size_t message : members) outcomes_[message] = Outcome::unknown(error);
    cause_ = error;
    halted_ = true;
  }

  struct Held {
    std::size_t message;
    Entry entry;
  };

  const SinkOptions& options_;
  const SizeLimit& limit_;
  Service& service_;
  std::span<const Message> messages_;
  std::span<Outcome> outcomes_;
  KeyGate gate_;
  const Lease& lease_;
  Deadline deadline_;
  std::stop_token stop_;
  std::optional<Held> held_;  // taken from the gate, and not sent yet
  std::vector<Members> apart_;
  std::map<std::size_t, Members> under_way_;
  std::size_t next_token_ = 0;
  SharedError cause_;
  bool halted_ = false;
};

Result<void> SqsSink::open(std::stop_token stop) {
  service_ = std::make_unique<Service>(options_.queue, lease());
  auto opened = service_->open(Deadline::after(options_.queue.timeout), std::move(stop));
  if (!opened) {
    service_.reset();
    return opened;
  }
  limit_ = SizeLimit::of(service_->largest_message(), options_.max_message_bytes);
  looked_ = SteadyClock::now();
  if (!service_->largest_message()) tell_limit();
  return opened;
}

void SqsSink::tell_limit() {
  log::info(
      "message_limit_unknown", options_.queue.pipeline,
      "{} does not tell its MaximumMessageSize: messages of up to {} bytes are sent ({}), and "
      "the queue itself refuses what it does not take; allow sqs:GetQueueAttributes, or set "
      "max_message_bytes",
      service_->where(), limit_.bytes,
      options_.max_message_bytes ? "max_message_bytes" : "the most that SQS takes");
}

void SqsSink::look_for_larger_limit(std::span<const Message> messages, Deadline deadline,
                                    std::stop_token stop) {
  if (limit_.said != SizeLimit::Said::by_queue) return;
  const bool may_be_beyond = std::ranges::any_of(messages, [&](const Message& message) {
    return message.body.size() + kUsualAttributeBytes > limit_.bytes;
  });
  if (!may_be_beyond || SteadyClock::now() - looked_ < kLookEvery) return;
  looked_ = SteadyClock::now();
  // Where it cannot be read now, the limit that was read before stands.
  if (!service_->look(deadline, std::move(stop))) return;
  limit_ = SizeLimit::of(service_->largest_message(), options_.max_message_bytes);
}

std::vector<Outcome> SqsSink::deliver(std::span<const Message> messages, Deadline deadline,
                                      std::stop_token stop) {
  std::vector<Outcome> outcomes(messages.size(), Outcome::unknown(nullptr));
  auto ready = service_ ? Result<void>() : open(stop);
  if (ready) ready = service_->renew(deadline, stop);
  if (!ready) {
    const SharedError error = share(std::move(ready.error()));
    return std::vector<Outcome>(messages.size(), Outcome::unknown(error));
  }
  look_for_larger_limit(messages, deadline, stop);
  Delivery(options_, limit_, *service_, messages, outcomes, lease(), deadline, std::move(stop))
      .run();
  return outcomes;
}

void SqsSink::close() {
  service_.reset();
}

}  // namespace relay::sqs
