#include "backends/kafka/iam_tokens.h"

#include <fmt/core.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/base64.h"
#include "core/deadline.h"

namespace relay::kafka {

using Clock = std::chrono::system_clock;

namespace {

constexpr std::chrono::seconds kLifetime{900};  // the longest that brokers accept
constexpr std::chrono::milliseconds kPatience{10000};
constexpr std::string_view kService = "kafka-cluster";
/// The library asks for a name. Brokers take the identity from the signature.
constexpr const char* kPrincipal = "pgtrickle-relay";

/// RFC 4648, section 5, without padding.
std::string base64url(std::string_view bytes) {
  std::string text = base64(bytes);
  text.erase(std::min(text.find('='), text.size()));
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  return text;
}

std::int64_t milliseconds_of(Clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(at.time_since_epoch()).count();
}

}  // namespace

IamToken make_iam_token(const aws::Credentials& keys, std::string_view region,
                        Clock::time_point now, std::optional<Clock::time_point> keys_end) {
  std::string url = aws::presigned_url(
      keys, region, kService, fmt::format("kafka.{}.amazonaws.com", region),
      "Action=kafka-cluster%3AConnect", static_cast<int>(kLifetime.count()), aws::amz_date(now));
  // Brokers log it. It is no part of what is signed.
  url += "&User-Agent=pgtrickle-relay%2F" RELAY_VERSION;
  // The date that is signed has no fraction of a second.
  const auto signed_at = Clock::from_time_t(Clock::to_time_t(now));
  return {base64url(url),
          std::min(signed_at + kLifetime, keys_end.value_or(Clock::time_point::max()))};
}

std::string region_of_brokers(std::string_view brokers) {
  for (const std::string_view mark : {".kafka.", ".kafka-serverless."}) {
    const auto begin = brokers.find(mark);
    if (begin == std::string_view::npos) continue;
    const auto rest = brokers.substr(begin + mark.size());
    const auto end = rest.find(".amazonaws.com");
    const auto region = rest.substr(0, std::min(end, rest.size()));
    if (end != std::string_view::npos && region.find_first_of(".,:") == std::string_view::npos) {
      return std::string(region);
    }
  }
  return {};
}

Result<IamToken> IamTokens::next() {
  const auto around =
      aws::process_surroundings({}, {}, Deadline::after(kPatience), stop_.get_token());
  const auto keys = keys_.get(around);
  if (!keys) return fail(keys.error());
  if (region_.empty()) region_ = keys_.region(around);
  if (region_.empty()) {
    return fail(misconfigured("no_region", "the AWS region of the cluster is not known",
                              "set region, or AWS_REGION"));
  }
  return make_iam_token(*keys, region_, around.now(), keys_.expire());
}

void IamTokens::refresh(rd_kafka_t* client) {
  const auto token = next();
  {
    const MutexLock lock(mutex_);
    failure_ = token ? std::nullopt : std::optional(token.error().in_context("AWS_MSK_IAM"));
  }
  std::array<char, 512> text{};
  if (token && rd_kafka_oauthbearer_set_token(
                   client, token->text.c_str(), milliseconds_of(token->expires), kPrincipal,
                   nullptr, 0, text.data(), text.size()) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    return;
  }
  // The library asks again after ten seconds.
  rd_kafka_oauthbearer_set_token_failure(client, token ? text.data() : "see the relay's error");
}

std::optional<Error> IamTokens::failure() const {
  const MutexLock lock(mutex_);
  return failure_;
}

}  // namespace relay::kafka
