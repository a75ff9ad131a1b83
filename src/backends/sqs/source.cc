#include "backends/sqs/source.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <string>
#include <vector>

#include <simdjson.h>

#include "backends/sqs/batches.h"
#include "backends/sqs/errors.h"
#include "core/log.h"
#include "core/pause.h"
#include "core/text.h"

namespace relay::sqs {

using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kLagEvery{5};  // each question is billed like a receipt
constexpr std::chrono::seconds kGiveBackWithin{2};
constexpr milliseconds kLastAnswers{100};
constexpr milliseconds kKeeperPause{200};
constexpr std::size_t kMessagesOfAReceive = 10;
constexpr std::string_view kVisible = "ApproximateNumberOfMessages";
constexpr std::string_view kHidden = "ApproximateNumberOfMessagesNotVisible";

std::string visibility(milliseconds hidden) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(hidden).count();
  return fmt::format(R"(,"VisibilityTimeout":{})", seconds);
}

}  // namespace

Result<void> SqsSource::open(std::stop_token stop) {
  service_ = std::make_unique<Service>(options_.queue);
  auto opened = service_->open(Deadline::after(options_.queue.timeout), stop);
  if (!opened) {
    service_.reset();
    return opened;
  }
  shape_ = std::make_shared<const TableShape>(
      TableShape{.name = options_.queue.queue, .key_columns = {}});
  tell_of_redrive(stop);
  if (!keeper_.joinable()) {
    keeper_ = std::jthread([this](std::stop_token ending) { keep_hidden(std::move(ending)); });
  }
  return {};
}

/// SQS itself moves a message away that was received often enough, whatever became of it.
void SqsSource::tell_of_redrive(std::stop_token stop) {
  const std::string body = fmt::format(R"({{"QueueUrl":{},"AttributeNames":["RedrivePolicy"]}})",
                                       json_string(options_.queue.queue_url));
  const auto answer = service_->call("GetQueueAttributes", body, options_.queue.timeout,
                                     Deadline::after(options_.queue.timeout), std::move(stop));
  if (!answer) return;
  simdjson::dom::parser parser;
  std::string_view policy;
  if (parser.parse(*answer)["Attributes"]["RedrivePolicy"].get(policy)) return;
  log::info("redrive_policy", options_.queue.pipeline,
            "SQS moves messages of {} to another queue once they were received too often, which a "
            "stop of the relay counts as: {}",
            options_.queue.queue, policy);
}

/// Keeps the long polls going, and takes what they bring. They outlive a call of `read`: one that
/// is given up could have received messages, which would then be hidden for a while.
Result<void> SqsSource::receive(Deadline deadline, std::stop_token stop) {
  if (auto ready = service_->renew(deadline, stop); !ready) return ready;
  std::string body = R"({"QueueUrl":)";
  append_json_string(body, options_.queue.queue_url);
  body += fmt::format(R"(,"MaxNumberOfMessages":{},"WaitTimeSeconds":{},"AttributeNames":["All"],)"
                      R"("MessageAttributeNames":["All"]{}}})",
                      kMessagesOfAReceive,
                      std::chrono::floor<std::chrono::seconds>(options_.wait).count(),
                      visibility(options_.visibility_timeout));
  while (service_->in_flight() < options_.max_in_flight) {
    service_->start(0, "ReceiveMessage", body, options_.wait + options_.queue.timeout);
  }
  return collect(deadline, std::move(stop));
}

/// Takes what the long polls under way bring until the deadline.
Result<void> SqsSource::collect(Deadline deadline, std::stop_token stop) {
  std::vector<http::Response> responses;
  service_->wait(responses, deadline, std::move(stop));
  Result<void> taken;
  for (const http::Response& response : responses) {
    if (auto one = take(response); !one) taken = std::move(one);
  }
  return taken;
}

Result<void> SqsSource::take(const http::Response& response) {
  if (response.error) return fail(*response.error);
  if (response.status != 200) {
    Error error = response_error(service_->where(), response);
    if (is_expired_token(error.code)) {
      service_->forget_credentials();
      error.error_class = ErrorClass::transient;
    }
    // It is about no message.
    if (error.error_class == ErrorClass::rejected) error.error_class = ErrorClass::misconfigured;
    return fail(std::move(error));
  }
  auto messages = parse_received(response.body, service_->where());
  if (!messages) return fail(messages.error());
  const auto hidden_until = SteadyClock::now() + options_.visibility_timeout;
  for (Received& message : *messages) {
    const std::int64_t number = receipts_.add(message.id, message.receipt, hidden_until);
    if (number != 0) received_.push_back({number, std::move(message)});
  }
  return {};
}

Result<RecordBatch> SqsSource::read(const ReadLimits& limits, Deadline deadline,
                                    std::stop_token stop) {
  if (!service_) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  while (received_.empty() && !deadline.passed() && !stop.stop_requested()) {
    if (auto got = receive(deadline, stop); !got && received_.empty()) {
      if (got.error().error_class == ErrorClass::cancelled) return RecordBatch();
      return fail(got.error());
    }
  }
  // What else is there already.
  while (!received_.empty() && received_.size() < limits.records && !stop.stop_requested()) {
    const std::size_t before = received_.size();
    if (!receive(Deadline::after(milliseconds(0)), stop) || received_.size() == before) break;
  }
  RecordBatch batch;
  std::size_t bytes = 0;
  while (!received_.empty() && batch.records.size() < limits.records && bytes < limits.bytes) {
    const Numbered& next = received_.front();
    bytes += next.message.body.size();
    Record record =
        to_record(next.message, options_.queue.queue, options_.events, mapping_, batch.arena);
    record.id = next.number;
    batch.add(std::move(record), shape_);
    received_.pop_front();
  }
  return batch;
}

Result<void> SqsSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const auto messages = receipts_.settled(settled.id);
  if (messages.empty()) return {};
  if (!ack_service_) ack_service_ = std::make_unique<Service>(options_.queue);
  return for_all_receipts(*ack_service_, "DeleteMessageBatch", options_.queue.queue_url, messages,
                          {}, options_.queue.timeout, Deadline::after(options_.queue.timeout * 2),
                          {}, [this](std::int64_t number) { receipts_.forget(number); });
}

/// What a long poll brings while the pipeline takes nothing in is kept hidden, too.
milliseconds SqsSource::tend(std::stop_token stop) {
  if (service_ && service_->in_flight() > 0) {
    // A poll that failed begins anew with the next read, which says why where it fails again.
    static_cast<void>(collect(Deadline::after(milliseconds(0)), std::move(stop)));
  }
  return options_.visibility_timeout / 4;
}

std::optional<std::int64_t> SqsSource::lag() {
  const std::int64_t known = lag_;
  return known < 0 ? std::nullopt : std::optional(known);
}

/// The keeper's thread: hides what is in work anew before a third of its time is left.
void SqsSource::keep_hidden(std::stop_token stop) {
  std::unique_ptr<Service> service;
  auto lag_due = SteadyClock::now();
  do {
    try {
      if (!service) service = std::make_unique<Service>(options_.queue);
      extend(*service, stop);
      if (SteadyClock::now() >= lag_due) {
        lag_ = ask_lag(*service, stop).value_or(-1);
        lag_due = SteadyClock::now() + kLagEvery;
      }
    } catch (const std::exception& exception) {
      log::warn("not_hidden", options_.queue.pipeline, "keeping messages hidden: {}",
                exception.what());
    }
  } while (pause(Deadline::after(kKeeperPause), stop));
}

void SqsSource::extend(Service& service, std::stop_token stop) {
  const auto now = SteadyClock::now();
  const auto due =
      receipts_.due(now + options_.visibility_timeout * 2 / 3, now + options_.visibility_timeout);
  if (due.empty()) return;
  std::set<std::int64_t> hidden;
  const auto extended =
      for_all_receipts(service, "ChangeMessageVisibilityBatch", options_.queue.queue_url, due,
                       visibility(options_.visibility_timeout), options_.queue.timeout,
                       Deadline::after(options_.visibility_timeout), stop,
                       [&](auto number) { hidden.insert(number); });
  for (const auto& message : due) {
    if (!hidden.contains(message.number)) receipts_.not_hidden(message.number);
  }
  if (!extended && !stop.stop_requested()) {
    // At worst they come again, and the inbox knows their ids.
    log::failure("not_hidden", options_.queue.pipeline, extended.error());
  } else if (extended) {
    log::recovered("not_hidden", options_.queue.pipeline);
  }
}

/// Messages that may be received, and those that were and are not deleted. Those that are delayed
/// are not to be delivered yet.
std::optional<std::int64_t> SqsSource::ask_lag(Service& service, std::stop_token stop) {
  // The thread that asks has messages to hide, too.
  const Deadline deadline =
      Deadline::after(std::min(options_.queue.timeout, options_.visibility_timeout / 4));
  if (!service.renew(deadline, stop)) return std::nullopt;
  const std::string body = fmt::format(R"({{"QueueUrl":{},"AttributeNames":["{}","{}"]}})",
                                       json_string(options_.queue.queue_url), kVisible, kHidden);
  const auto answer =
      service.call("GetQueueAttributes", body, options_.queue.timeout, deadline, std::move(stop));
  if (!answer) return std::nullopt;
  simdjson::dom::parser parser;
  const auto attributes = parser.parse(*answer)["Attributes"];
  std::int64_t sum = 0;
  for (const std::string_view name : {kVisible, kHidden}) {
    std::string_view text;
    std::int64_t count = 0;
    if (attributes[name].get(text)) return std::nullopt;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), count);
    if (read.ec != std::errc()) return std::nullopt;
    sum += count;
  }
  return sum;
}

/// Takes what long polls have brought and was not read. False: nothing more.
bool SqsSource::take_last_answers() {
  received_.clear();
  std::vector<http::Response> responses;
  do {
    responses.clear();
    service_->wait(responses, Deadline::after(kLastAnswers), {});
    for (const http::Response& response : responses) static_cast<void>(take(response));
  } while (!responses.empty());
  return !received_.empty();
}

/// Lets others have at once what is not settled.
void SqsSource::give_back() {
  const auto left = receipts_.take_all();
  if (left.empty()) return;
  Service service(options_.queue);
  const auto given =
      for_all_receipts(service, "ChangeMessageVisibilityBatch", options_.queue.queue_url, left,
                       visibility(milliseconds(0)), kGiveBackWithin,
                       Deadline::after(kGiveBackWithin), {}, [](std::int64_t) {});
  if (!given) {
    log::info("not_given_back", options_.queue.pipeline,
              "{}: what is not settled comes again "
              "after visibility_timeout",
              given.error().message);
  }
}

void SqsSource::close() {
  if (keeper_.joinable()) {
    keeper_.request_stop();
    keeper_.join();
    keeper_ = {};
  }
  // SQS may give what is given back to a long poll of our own that it still has: these are read
  // until they bring no more.
  do {
    give_back();
  } while (service_ && take_last_answers());
  service_.reset();
  ack_service_.reset();
  received_.clear();
}

}  // namespace relay::sqs
