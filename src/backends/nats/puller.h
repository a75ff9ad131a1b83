#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "backends/nats/connection.h"
#include "backends/nats/source_options.h"
#include "core/deadline.h"
#include "core/error.h"

struct __natsMsg;
struct __natsSubscription;

namespace relay::nats {

/// Asks a durable consumer for messages over a connection of its own, and answers for them. `next`:
/// one thread; `answer`: any thread.
class Puller {
 public:
  struct FreeMessage {
    void operator()(__natsMsg* message) const;
  };
  using Received = std::unique_ptr<__natsMsg, FreeMessage>;

  /// Connects; makes the consumer where it is absent, and with `create_stream` the stream.
  /// Misconfigured: no such stream, or a consumer
  /// that cannot be pulled from.
  static Result<std::unique_ptr<Puller>> open(const SourceOptions& options,
                                              const Endpoint& endpoint);
  ~Puller();
  Puller(const Puller&) = delete;
  Puller& operator=(const Puller&) = delete;

  bool closed() const { return connection_->closed(); }
  /// When the stream was made: nanoseconds since 1970.
  std::int64_t stream_created_ns() const { return stream_created_ns_; }
  std::chrono::nanoseconds ack_wait() const { return ack_wait_; }
  /// What it means that the consumer counts from its beginning again: this is of no use any more.
  Error remade() const;
  /// How often the server delivers a message at most; -1: until it is settled.
  std::int64_t max_deliver() const { return max_deliver_; }

  /// The next message; null where there is none within that time. An error: the connection or the
  /// consumer is gone, and this is of no use any more.
  Result<Received> next(std::chrono::milliseconds time, std::size_t max_bytes);
  /// The same, of what was asked for before.
  Result<Received> take(std::chrono::milliseconds time);

  /// What the consumer still holds, pending and unacknowledged, as the server said within the last
  /// seconds, and asks it again. Does not wait. The thread of `next`.
  std::optional<std::int64_t> held();

  /// "+ACK", "+WPI" or "-NAK" to the reply subject of a message. What does not get through costs a
  /// second delivery at worst.
  void answer(const std::string& reply, const char* what);
  /// Ends the requests, and says of what has come for them that it may come again at once.
  void give_back(std::chrono::milliseconds time);
  /// Waits until the server has all answers, at most that long.
  void flush(std::chrono::milliseconds time);

 private:
  struct FreeSubscription {
    void operator()(__natsSubscription* subscription) const;
  };
  using Subscription = std::unique_ptr<__natsSubscription, FreeSubscription>;

  explicit Puller(const SourceOptions& options) : options_(options) {}
  Result<void> prepare();
  Result<void> check_stream(bool may_make);
  Result<void> make_stream();
  Result<void> check_consumer();
  Result<void> make_consumer();
  Result<void> subscribe();
  Result<void> listen(const std::string& subject, Subscription& subscription);
  Result<void> request(std::size_t max_bytes);
  Result<void> note_status(std::string_view status, std::string_view text);
  void tell_of_given_up();
  Error failure(int status, int code, std::string_view doing) const;

  const SourceOptions& options_;
  std::unique_ptr<Connection> connection_;
  std::string inbox_;
  Subscription messages_;
  Subscription advisories_;
  std::string info_inbox_;
  Subscription infos_;
  std::int64_t stream_created_ns_ = 0;
  std::chrono::nanoseconds ack_wait_{};
  std::int64_t max_deliver_ = -1;
  std::optional<std::int64_t> held_;
  SteadyClock::time_point held_at_{};        // when the server said so
  SteadyClock::time_point held_asked_at_{};  // when it was asked last
  std::int64_t requested_ = 0;               // messages that may still come for what was asked
  bool one_of_any_size_ = false;
  SteadyClock::time_point heard_ = SteadyClock::now();
};

}  // namespace relay::nats
