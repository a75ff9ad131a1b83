#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace relay::nats {

/// What the reply subject of a message from a JetStream consumer says:
/// $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, or the
/// same with domain and account before the stream and something random at the end.
struct AckSubject {
  std::string_view stream;
  std::uint64_t delivered = 0;  ///< how often, this time included
  std::uint64_t sequence = 0;   ///< in the stream
  /// Counts the consumer's deliveries: it rises, unless the consumer was made again.
  std::uint64_t consumer_sequence = 0;
  std::int64_t time_ns = 0;   ///< when it was stored, since 1970
  std::uint64_t pending = 0;  ///< messages behind it
};

/// Nothing where it is no such subject.
std::optional<AckSubject> parse_ack_subject(std::string_view reply);

}  // namespace relay::nats
