#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/nats/event_loop.h"
#include "backends/nats/options.h"
#include "backends/nats/outcomes.h"
#include "core/error.h"
#include "core/message.h"

struct __jsCtx;
struct __natsConnection;
struct __natsMsg;
struct __natsOptions;

namespace relay::nats {

/// What of a stream decides how messages may be sent to it.
struct StreamFacts {
  int replicas = 1;
  bool refuses_when_full = false;  ///< limits with discard policy "new"

  /// Whether it could store a later message after it refused or lost an earlier one.
  bool may_leave_gaps() const { return replicas > 1 || refuses_when_full; }
};

/// One connection to one server, never reconnecting by itself: a reconnecting library would send
/// what was published after the cut before what the cut swallowed. What is under way is written
/// into the outcomes, which may outlive the connection. One thread.
class Connection {
 public:
  /// It ends with the lease.
  static Result<std::unique_ptr<Connection>> open(const Options& options, const Endpoint& endpoint,
                                                  Lease& lease = Lease::endless());
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Outcomes& outcomes() { return *outcomes_; }
  bool closed() const;
  const std::string& address() const { return address_; }
  /// The library's own, for what this class does not offer. They end with it.
  __natsConnection* handle() const { return connection_.get(); }
  __jsCtx* jetstream() const { return context_.get(); }

  /// Makes a message ready to be sent. An error, of class rejected: it cannot be sent.
  Result<void> add(const Message& message, std::size_t index);
  /// Gives what was added to the library, which buffers it; the outcomes will be told. Never
  /// blocks.
  Result<void> send();

  /// A subject on which answers come, which no other client has.
  std::string new_inbox() const;

  /// Asks the server; blocks for at most `operation_timeout`.
  Result<StreamFacts> stream_facts(const std::string& stream);
  /// Whether a stream takes subjects of this pattern.
  Result<bool> has_stream_over(const std::string& subject);
  /// With the subjects and limits of the options.
  Result<void> create_stream(const std::string& stream, const Options& options);

 private:
  struct Free {
    void operator()(__natsOptions* options) const;
    void operator()(__natsConnection* connection) const;
    void operator()(__jsCtx* context) const;
    void operator()(__natsMsg* message) const;
  };
  template <class T>
  using Owned = std::unique_ptr<T, Free>;

  Connection(const Options& options, const Endpoint& endpoint, Lease& lease);
  Result<void> connect(const Options& options, const Endpoint& endpoint);
  Result<Owned<__natsOptions>> library_options(const Options& options, const Endpoint& endpoint);

  const std::string address_;
  const std::string expected_stream_;
  const std::string inbox_prefix_;
  const std::chrono::milliseconds operation_timeout_;
  std::shared_ptr<Outcomes> outcomes_;
  std::uintptr_t callback_id_;
  std::size_t max_payload_ = 0;
  std::vector<Outcomes::Sending> ready_;
  std::vector<Owned<__natsMsg>> ready_messages_;
  std::string scratch_;  // for texts that the library wants with a NUL behind them
  std::unique_ptr<EventLoop> loop_;
  Owned<__natsConnection> connection_;
  Owned<__jsCtx> context_;
};

}  // namespace relay::nats
