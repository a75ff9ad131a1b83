#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>

#include "aws/credentials.h"
#include "aws/identity.h"
#include "core/error.h"
#include "core/mutex.h"

struct rd_kafka_s;

namespace relay::kafka {

/// What Amazon MSK takes as proof of who we are: a signed request that it makes for itself.
struct IamToken {
  std::string text;
  std::chrono::system_clock::time_point expires;
};

/// The token of `keys`, which are good until `keys_end`.
/// https://docs.aws.amazon.com/msk/latest/developerguide/iam-access-control.html
IamToken make_iam_token(const aws::Credentials& keys, std::string_view region,
                        std::chrono::system_clock::time_point now,
                        std::optional<std::chrono::system_clock::time_point> keys_end);

/// "b-1.orders.abc.c2.kafka.eu-west-1.amazonaws.com:9098,..." is in eu-west-1; empty where no
/// broker says.
std::string region_of_brokers(std::string_view brokers);

/// Gives a client of librdkafka its tokens: the first one, and each next one when four fifths of
/// the time of the last one are over. A thread of the library asks for them, so that neither a
/// delivery nor an idle pipeline holds a renewal back. While no new token can be had, the last one
/// stays in use until it ends.
class IamTokens {
 public:
  explicit IamTokens(aws::Identity identity)
      : region_(identity.region), keys_(std::move(identity)) {}

  /// The library asks for a token. One thread, that of the library.
  void refresh(rd_kafka_s* client);
  /// Why there is no new token. Any thread.
  std::optional<Error> failure() const;
  /// Ends a refresh that waits for a service. Any thread.
  void stop() { stop_.request_stop(); }

 private:
  Result<IamToken> next();

  std::string region_;
  aws::Keys keys_;
  std::stop_source stop_;
  mutable Mutex mutex_;
  std::optional<Error> failure_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::kafka
