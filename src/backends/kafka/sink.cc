#include "backends/kafka/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>

#include "backends/kafka/errors.h"
#include "backends/kafka/topic.h"
#include "connector/in_flight_window.h"
#include "core/log.h"

namespace relay::kafka {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSlice{100};  // between two looks at the clock
constexpr milliseconds kLimitsTime{2000};
constexpr milliseconds kCreationTime{10000};
constexpr std::size_t kTopicsRemembered = 10000;
/// Of a topic's limit: what a batch has beside its messages.
constexpr std::size_t kBatchOverhead = 512;
constexpr std::size_t kSmallestBatch = 1024;

SharedError shared(ErrorClass error_class, std::string code, std::string message,
                   std::string remedy = {}) {
  return share(Error{error_class, std::move(code), std::move(message), std::move(remedy), {}});
}

/// What is unknown for that reason: topics are made where they are absent, and this one was not.
void add_remedy(std::span<Outcome> outcomes, const SharedError& failure) {
  Error error = *failure;
  error.remedy =
      "give the user the right CREATE on the topic or on the cluster, or create the topic";
  const SharedError better = share(std::move(error));
  for (Outcome& outcome : outcomes) {
    if (outcome.error == failure) outcome.error = better;
  }
}

}  // namespace

/// Sends some messages by one producer and waits for what becomes of them.
class KafkaSink::Delivery {
 public:
  Delivery(Producer& producer, const SinkOptions& options, const ImpossibleTopics& impossible,
           std::span<const Message> messages, const Lease& lease, Deadline deadline,
           std::stop_token stop)
      : producer_(producer),
        options_(options),
        impossible_(impossible),
        messages_(messages),
        lease_(lease),
        window_({.messages = options.max_in_flight, .silence = options.delivery_timeout}, deadline),
        stop_(std::move(stop)),
        outcomes_(messages.size()) {}

  /// Writes an outcome for each message but the suspects. Not null: why not all of them have come
  /// to a good end.
  SharedError run(std::span<Outcome> outcomes) {
    while (!ended()) {
      fill();
      wait();
    }
    if (!window_.empty()) {
      producer_.abandon();
      note_reports();
    }
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      outcomes[i] = outcomes_[i] ? std::move(*outcomes_[i]) : Outcome::unknown(failure_);
    }
    std::ranges::sort(suspects_);
    return failure_;
  }

  /// True: the producer has something under way that it must forget.
  bool must_close() const { return must_close_; }
  /// Messages whose batch was refused, in order.
  const std::vector<std::size_t>& suspects() const { return suspects_; }
  /// Some of these because it was too large.
  bool batch_too_large() const { return batch_too_large_; }

 private:
  bool ended() {
    if (!lease_.holds() && !lease_is_over_) end_with_lease();
    note_reports();
    const auto verdict = window_.verdict(SteadyClock::now());
    if (lease_.is_cut()) {
      give_up(share(lease_over()));
    } else if (producer_.broken()) {
      failure_ = nullptr;  // what the reports say of it is less clear
      give_up(share(producer_.trouble()));
    } else if (stop_.stop_requested()) {
      give_up(shared(ErrorClass::cancelled, "stopped", "stopped before the acknowledgement"));
    } else if (verdict == InFlightWindow::Verdict::silent) {
      give_up(silence());
    } else if (verdict == InFlightWindow::Verdict::late) {
      give_up(shared(ErrorClass::transient, "deadline",
                     fmt::format("Kafka at {} is too slow", options_.client.brokers),
                     "nothing is lost: the relay goes on"));
    } else {
      return window_.empty() && (next_ == messages_.size() || failure_);
    }
    return true;
  }

  /// What is in a request may still be acknowledged; all else is not sent by this producer.
  void end_with_lease() {
    lease_is_over_ = must_close_ = true;
    if (!failure_) failure_ = share(lease_over());
    producer_.take_back_unsent();
  }

  void give_up(SharedError why) {
    must_close_ = must_close_ || !window_.empty() || producer_.broken();
    if (!failure_) failure_ = std::move(why);
  }

  SharedError silence() const {
    Error error = producer_.trouble();
    error.message = fmt::format("no acknowledgement within {} ms; {}",
                                options_.delivery_timeout.count(), error.message);
    return share(std::move(error));
  }

  /// Hands over as many as may be under way.
  void fill() {
    const auto now = SteadyClock::now();
    while (!failure_ && next_ < messages_.size() && window_.has_room()) {
      const Message& message = messages_[next_];
      if (message.subject != legal_topic_) {
        if (const auto problem = topic_problem(message.subject); !problem.empty()) {
          settle(next_++, illegal_topic(message, problem));
          continue;
        }
        if (const auto why = impossible_.find(message.subject); why != impossible_.end()) {
          settle(next_++, Outcome::rejected(why->second));
          continue;
        }
        legal_topic_ = message.subject;
      }
      auto sent = producer_.send(message, next_);
      if (sent && *sent == Producer::Accepted::full) break;
      if (sent) {
        window_.sent(bytes_of(message), now);
      } else {
        refuse(next_, std::move(sent.error()));
      }
      ++next_;
    }
  }

  static Outcome illegal_topic(const Message& message, std::string_view problem) {
    return Outcome::rejected(
        shared(ErrorClass::rejected, "illegal_topic",
               fmt::format("topic '{}': {}", message.subject.substr(0, 260), problem),
               "correct the topic template, or the values that it is made of"));
  }

  static std::size_t bytes_of(const Message& message) {
    return message.key.size() + (message.tombstone ? 0 : message.body.size());
  }

  void wait() {
    if (window_.empty()) return;
    const bool more = !failure_ && next_ < messages_.size();
    producer_.wait(std::min(kSlice, window_.until().left()), !more, stop_);
  }

  void note_reports() {
    const auto reports = producer_.take_reports();
    if (reports.empty()) return;
    const auto now = SteadyClock::now();
    for (const auto& [index, code] : reports) {
      if (index >= messages_.size()) continue;
      window_.answered(bytes_of(messages_[index]), now);
      if (code == 0) {
        outcomes_[index] = Outcome::delivered();
      } else if (!failure_ || !must_close_) {
        auto error = delivery_error(code, {}, messages_[index].subject, options_.client.brokers);
        if (error.error_class == ErrorClass::rejected && shares_batch(messages_[index])) {
          suspects_.push_back(index);
          batch_too_large_ |= error.code == "too_large";
        } else {
          refuse(index, std::move(error));
        }
      }
    }
  }

  void refuse(std::size_t index, Error error) {
    auto what = share(std::move(error));
    if (what->error_class == ErrorClass::rejected) {
      settle(index, Outcome::rejected(what));
    } else {
      settle(index, Outcome::unknown(what));
      if (!failure_) failure_ = what;
    }
  }

  /// Whether it may have been refused for what another message of its batch is.
  bool shares_batch(const Message& message) const {
    return !producer_.batching().singly && message.body.size() <= producer_.batching().bytes;
  }

  void settle(std::size_t index, Outcome outcome) { outcomes_[index] = std::move(outcome); }

  Producer& producer_;
  const SinkOptions& options_;
  const ImpossibleTopics& impossible_;
  std::span<const Message> messages_;
  const Lease& lease_;
  InFlightWindow window_;
  std::stop_token stop_;
  std::vector<std::optional<Outcome>> outcomes_;
  std::vector<std::size_t> suspects_;
  bool batch_too_large_ = false;
  std::size_t next_ = 0;
  std::string_view legal_topic_;  // the last one that was looked at
  SharedError failure_;           // sending more is no use
  bool must_close_ = false;
  bool lease_is_over_ = false;
};

Result<void> KafkaSink::open(std::stop_token stop) {
  const MutexLock lock(mutex_);
  return reopen(std::move(stop));
}

void KafkaSink::close() {
  const MutexLock lock(mutex_);
  drop();
}

std::optional<EndReport> KafkaSink::report() const {
  if (mutex_.try_lock()) {
    const MutexLock lock(mutex_, std::adopt_lock);
    if (producer_) producer_->serve();
  }
  return statistics_.report();
}

Result<void> KafkaSink::reopen(std::stop_token stop) {
  drop();
  warn_of_no_verification(options_.client);
  return use(Batching{.bytes = batch_bytes_}, stop);
}

/// Makes the producer one that puts batches together like that.
Result<void> KafkaSink::use(Batching batching, std::stop_token stop) {
  if (producer_ && !producer_->broken() && producer_->batching() == batching) return {};
  producer_.reset();
  auto producer = Producer::open(options_, batching, statistics_, lease(), stop);
  if (!producer) return fail(producer.error());
  producer_ = std::move(*producer);
  return {};
}

void KafkaSink::drop() {
  producer_.reset();
  statistics_.forget();
}

/// Looks at the topics that were not used before, and makes those that are absent where it may.
Result<void> KafkaSink::prepare_topics(std::span<const Message> messages, Deadline deadline,
                                       std::stop_token stop) {
  std::set<std::string> unknown;
  std::string_view last;
  for (const Message& message : messages) {
    if (message.subject == last) continue;
    last = message.subject;
    std::string topic(message.subject);
    if (topic_problem(topic).empty() && !known_topics_.contains(topic)) {
      unknown.insert(std::move(topic));
    }
  }
  impossible_topics_.clear();
  if (unknown.empty()) return {};
  if (known_topics_.size() > kTopicsRemembered) known_topics_.clear();
  const Missing missing = learn_limits(unknown, deadline, stop);
  if (!options_.create_topics || missing.empty()) return {};
  if (auto created = create(missing, deadline, stop); !created) return created;
  if (options_.new_topics.config.contains("max.message.bytes")) {
    learn_limits(unknown, deadline, std::move(stop));
  }
  return {};
}

/// Asks how large a batch these topics take. Where that cannot be learnt, the usual size is tried.
/// Returns those that are not known to exist.
KafkaSink::Missing KafkaSink::learn_limits(const std::set<std::string>& topics, Deadline deadline,
                                           std::stop_token stop) {
  const auto limits =
      producer_->topic_limits(topics, Deadline::after(kLimitsTime).earlier(deadline), stop);
  if (!limits) {
    log::debug("topic_limits", options_.client.pipeline, "{}", limits.error().message);
    // Where topics are to be made, it must be known which are absent: they are asked again.
    if (!options_.create_topics) known_topics_.insert(topics.begin(), topics.end());
    return {};
  }
  Missing missing;
  for (const std::string& topic : topics) missing.emplace(topic, true);
  for (const auto& [topic, limit] : *limits) {
    known_topics_.insert(topic);
    if (limit == 0) {
      missing[topic] = false;
      continue;
    }
    missing.erase(topic);
    const std::size_t room = limit > kBatchOverhead ? limit - kBatchOverhead : 0;
    batch_bytes_ = std::min(batch_bytes_, std::max(kSmallestBatch, room));
  }
  return missing;
}

/// An error: why messages for one of them must wait. What can never be made is remembered.
Result<void> KafkaSink::create(const Missing& missing, Deadline deadline, std::stop_token stop) {
  std::set<std::string> topics;
  for (const auto& [topic, absent] : missing) topics.insert(topic);
  auto failures =
      producer_->create_topics(topics, options_.new_topics,
                               Deadline::after(kCreationTime).earlier(deadline), std::move(stop));
  if (!failures) return fail(failures.error());
  for (auto& [topic, error] : *failures) {
    // Brokers say so of a topic that exists, too.
    if (error.code == "not_authorised" && !missing.at(topic)) continue;
    if (error.error_class != ErrorClass::rejected) return fail(std::move(error));
    impossible_topics_.emplace(topic, share(std::move(error)));
  }
  return {};
}

std::vector<Outcome> KafkaSink::deliver(std::span<const Message> messages, Deadline deadline,
                                        std::stop_token stop) {
  const MutexLock lock(mutex_);
  std::vector<Outcome> outcomes(messages.size());
  const auto all_unknown = [&](const Error& error) {
    std::ranges::fill(outcomes, Outcome::unknown(share(error)));
    return outcomes;
  };
  if (!producer_ || producer_->broken()) {
    if (auto opened = reopen(stop); !opened) return all_unknown(opened.error());
  }
  if (auto prepared = prepare_topics(messages, deadline, stop); !prepared) {
    return all_unknown(prepared.error());
  }
  if (auto ready = use(Batching{.bytes = batch_bytes_}, stop); !ready) {
    return all_unknown(ready.error());
  }
  Delivery delivery(*producer_, options_, impossible_topics_, messages, lease(), deadline, stop);
  const SharedError failure = delivery.run(outcomes);
  if (delivery.must_close()) drop();
  if (failure && failure->code == "unknown_topic") {
    known_topics_.clear();  // it is made, or was deleted
    if (options_.create_topics) add_remedy(outcomes, failure);
  }
  const auto& suspects = delivery.suspects();
  if (suspects.empty()) return outcomes;
  if (delivery.batch_too_large()) {
    // The topics take less than was thought: they are asked again, and batches become smaller.
    known_topics_.clear();
    batch_bytes_ = std::max(kSmallestBatch, batch_bytes_ / 2);
  }
  if (failure) {
    for (const std::size_t index : suspects) outcomes[index] = Outcome::unknown(failure);
  } else {
    send_suspects(messages, suspects, outcomes, deadline, stop);
  }
  return outcomes;
}

/// Sends messages whose batch was refused once more, each by itself.
void KafkaSink::send_suspects(std::span<const Message> messages,
                              const std::vector<std::size_t>& suspects, std::span<Outcome> outcomes,
                              Deadline deadline, std::stop_token stop) {
  std::vector<Message> alone;
  for (const std::size_t index : suspects) alone.push_back(messages[index]);
  std::vector<Outcome> found(alone.size());
  if (auto ready = use(Batching{.bytes = batch_bytes_, .singly = true}, stop); !ready) {
    std::ranges::fill(found, Outcome::unknown(share(ready.error())));
  } else {
    Delivery delivery(*producer_, options_, impossible_topics_, alone, lease(), deadline, stop);
    delivery.run(found);
    if (delivery.must_close()) drop();
  }
  for (std::size_t i = 0; i < found.size(); ++i) outcomes[suspects[i]] = std::move(found[i]);
}

}  // namespace relay::kafka
