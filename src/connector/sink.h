#pragma once

#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "connector/end_report.h"
#include "connector/inspection.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/message.h"

namespace relay {

/// Where messages go. One thread at a time, the same one from `open` to `close`.
class Sink {
 public:
  virtual ~Sink() = default;

  /// Before the first `open`. What is sent ends with the lease: once it does not hold, a sink
  /// begins nothing more, and waits for the answers to what it has sent; when the lease is cut, the
  /// sink has no connection left on which anything could be sent, frozen or not (SocketCutter), and
  /// drops what it, or a library, still queues. All that was not answered is `unknown`.
  void send_under(Lease& lease) { lease_ = &lease; }

  /// Connects, and sees that it could write now. Transient: the broker is away, or what is written
  /// to is locked. Misconfigured: it refuses us, or a stream is missing.
  virtual Result<void> open(std::stop_token) = 0;

  /// Sends the messages, in order for each key, and returns one outcome a message, in their order.
  /// Free to pipeline inside; never returns before each outcome is known, the deadline has passed
  /// or a stop was asked for (what is not known then is `unknown`). Reconnects by itself within the
  /// deadline where the protocol makes that safe; else says `unknown`, and is closed and opened.
  virtual std::vector<Outcome> deliver(std::span<const Message>, Deadline, std::stop_token) = 0;

  virtual void close() = 0;

  /// Whether the connection has ended since the last delivery; it is then opened again, so that
  /// health tells the truth of a pipeline with nothing to send. Nothing where the sink does not
  /// know: it is then not asked again. Asked about once a second while nothing is sent, with the
  /// sink open.
  virtual std::optional<bool> has_ended() { return std::nullopt; }

  /// As Source::report. Any thread; does not wait.
  virtual std::optional<EndReport> report() const { return std::nullopt; }

  /// For `check`, in place of all of the above: whether it could write now. Nothing is made or
  /// sent. `subject`: that of all messages, where it is known before there is one.
  virtual Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop);

  /// What no other pipeline should write to meanwhile. After `inspect`.
  virtual std::vector<Claim> claims() const { return {}; }

 protected:
  Lease& lease() const { return *lease_; }

 private:
  Lease* lease_ = &Lease::endless();
};

inline Inspection Sink::inspect(const std::optional<std::string>&, std::stop_token) {
  return {};
}

}  // namespace relay
