#include "backends/sqs/service.h"

#include <fmt/core.h>

#include <utility>

#include "backends/sqs/errors.h"
#include "backends/sqs/size_limit.h"
#include "config/tls.h"
#include "core/text.h"
#include "http/url.h"

namespace relay::sqs {

namespace {

constexpr std::string_view kContentType = "application/x-amz-json-1.0";
}  // namespace

Service::Service(const QueueOptions& options, Lease& lease)
    : options_(options),
      where_(fmt::format("SQS queue {} at {}", options.queue, http::origin_of(options.endpoint))),
      region_(options.identity.region),
      keys_(options.identity),
      client_(options.client, lease) {}

Result<void> Service::renew(Deadline deadline, std::stop_token stop) {
  const auto around = aws::process_surroundings(options_.client.tls_ca, options_.client.proxy,
                                                deadline, std::move(stop));
  auto keys = keys_.get(around);
  if (!keys) return fail(keys.error().in_context(where_));
  credentials_ = std::move(*keys);
  if (region_.empty()) region_ = keys_.region(around);
  if (region_.empty() && !options_.endpoint.empty() && region_of_host(options_.host).empty() &&
      options_.host.find("amazonaws") == std::string::npos) {
    region_ = "us-east-1";  // an emulator: any will do
  }
  if (region_.empty()) {
    return fail(ErrorClass::misconfigured, "no_region", where_ + ": its region is not known",
                "set region, or AWS_REGION");
  }
  return {};
}

Result<void> Service::open(Deadline deadline, std::stop_token stop) {
  if (!options_.client.tls_verify) {
    config::warn_of_no_verification(options_.pipeline, where_);
  }
  if (auto renewed = renew(deadline, stop); !renewed) return renewed;
  auto looked = look(deadline, std::move(stop));
  if (looked || looked.error().code == "AccessDenied" ||
      looked.error().code == "AccessDeniedException") {
    return {};
  }
  // A later try may find other credentials.
  if (looked.error().error_class == ErrorClass::misconfigured) keys_.forget();
  return looked;
}

Result<void> Service::look(Deadline deadline, std::stop_token stop) {
  const std::string body =
      fmt::format(R"({{"QueueUrl":{},"AttributeNames":["QueueArn","MaximumMessageSize"]}})",
                  json_string(options_.queue_url));
  const auto answer = call("GetQueueAttributes", body, options_.timeout, deadline, std::move(stop));
  if (!answer) return fail(answer.error());
  largest_message_ = largest_message_of(*answer);
  return {};
}

http::Request Service::make_request(std::string_view action, std::string body,
                                    std::chrono::milliseconds timeout) {
  http::Request request;
  request.url = options_.endpoint;
  request.timeout = timeout;
  request.error_header = "x-amzn-query-error";
  request.owned_body = std::move(body);
  const std::string target = fmt::format("AmazonSQS.{}", action);
  const std::string date = aws::amz_date(std::chrono::system_clock::now());
  aws::Signable signable;
  signable.body = request.owned_body;
  signable.headers = {{"content-type", std::string(kContentType)},
                      {"host", options_.host},
                      {"x-amz-date", date},
                      {"x-amz-target", target}};
  if (!credentials_.session_token.empty()) {
    signable.headers.emplace_back("x-amz-security-token", credentials_.session_token);
    request.headers.add("X-Amz-Security-Token", credentials_.session_token);
  }
  request.headers.add("Content-Type", kContentType);
  request.headers.add("X-Amz-Date", date);
  request.headers.add("X-Amz-Target", target);
  request.headers.add("Authorization",
                      aws::authorization(credentials_, region_, "sqs", signable, date));
  return request;
}

void Service::start(std::size_t token, std::string_view action, std::string body,
                    std::chrono::milliseconds timeout) {
  client_.start(token, make_request(action, std::move(body), timeout));
}

Result<std::string> Service::call(std::string_view action, std::string body,
                                  std::chrono::milliseconds timeout, Deadline deadline,
                                  std::stop_token stop) {
  auto response = client_.fetch(make_request(action, std::move(body), timeout), deadline, stop);
  if (!response) return fail(response.error());
  if (response->status != 200) return fail(response_error(where_, *response));
  return std::move(response->body);
}

}  // namespace relay::sqs
