#include "backends/sqs/batches.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "backends/sqs/batch_answer.h"
#include "backends/sqs/errors.h"
#include "core/text.h"

namespace relay::sqs {

namespace {

constexpr std::size_t kMostEntries = 10;
constexpr std::size_t kRequestsAtOnce = 8;

std::string body_of(std::string_view queue_url, std::span<const Receipts::Underway> messages,
                    std::string_view more) {
  std::string body = R"({"QueueUrl":)";
  append_json_string(body, queue_url);
  body += R"(,"Entries":[)";
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (i > 0) body += ',';
    body += fmt::format(R"({{"Id":"{}","ReceiptHandle":)", i);
    append_json_string(body, messages[i].receipt);
    body += more;
    body += '}';
  }
  body += "]}";
  return body;
}

}  // namespace

Result<void> for_all_receipts(Service& service, std::string_view action, std::string_view queue_url,
                              std::span<const Receipts::Underway> messages, std::string_view more,
                              std::chrono::milliseconds timeout, Deadline deadline,
                              std::stop_token stop,
                              const std::function<void(std::int64_t number)>& done) {
  if (auto ready = service.renew(deadline, stop); !ready) return ready;
  std::optional<Error> failure;
  const auto group = [&](std::size_t first) {
    return messages.subspan(first, std::min(kMostEntries, messages.size() - first));
  };
  const auto settle = [&](const http::Response& response) {
    const auto entries = group(response.token);
    if (response.error) {
      failure = *response.error;
      return;
    }
    if (response.status != 200) {
      failure = response_error(service.where(), response);
      if (is_expired_token(failure->code)) service.forget_credentials();
      return;
    }
    const auto answer = parse_batch_answer(response.body, service.where(), entries.size());
    if (!answer) {
      failure = answer.error();
      return;
    }
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const auto& error = (*answer)[i];
      if (!error || error->error_class == ErrorClass::rejected) {
        done(entries[i].number);
      } else {
        failure = *error;
      }
    }
  };
  std::size_t next = 0;
  std::vector<http::Response> responses;
  while (true) {
    while (!failure && next < messages.size() && service.in_flight() < kRequestsAtOnce) {
      service.start(next, action, body_of(queue_url, group(next), more), timeout);
      next += kMostEntries;
    }
    if (service.in_flight() == 0) break;
    responses.clear();
    service.wait(responses, deadline, stop);
    for (const http::Response& response : responses) settle(response);
    if (responses.empty()) {
      service.cancel_all();
      return fail(ErrorClass::transient, "timeout",
                  fmt::format("{}: {} took too long", service.where(), action),
                  "it is tried again");
    }
  }
  if (failure) return fail(*failure);
  return {};
}

}  // namespace relay::sqs
