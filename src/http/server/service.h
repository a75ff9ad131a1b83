#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "http/server/request.h"

namespace relay::http {

struct Answer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

/// Several connections may send the same answer at the same time.
using SharedAnswer = std::shared_ptr<const Answer>;

/// Why the server itself does not pass a request on.
struct Problem {
  enum class Kind {
    malformed,             ///< not HTTP; `detail` says why
    cut_off,               ///< the client ended the connection within the request
    head_too_large,        ///
    body_too_large,        ///
    too_slow,              ///< the request took longer than ServerLimits::request
    no_room,               ///< Service::reserve refused a part of the body
    too_many_connections,  ///< there are more than ServerLimits::connections
    stopping,              ///< the server is being stopped
  };
  Kind kind = Kind::malformed;
  std::string detail;
};

struct ConnectionPlace;

/// The client of one request, which waits for the answer. Used on the server's thread only; may
/// outlive the connection and the server, and then does nothing.
class PendingAnswer {
 public:
  /// The first answer counts; later ones are ignored.
  void send(SharedAnswer answer) const;
  /// From now on the service has `time` to answer. Where it does not, the server asks
  /// `Service::late(ticket)` for the answer. Without this call the client waits without a limit.
  void allow(std::chrono::milliseconds time, std::int64_t ticket) const;

 private:
  friend class Connection;
  PendingAnswer(std::shared_ptr<const ConnectionPlace> place, std::uint64_t request)
      : place_(std::move(place)), request_(request) {}

  std::shared_ptr<const ConnectionPlace> place_;
  std::uint64_t request_;
};

/// What a server answers with. The server calls it on its own thread only, so no function may wait
/// or compute for long. It outlives the server.
class Service {
 public:
  virtual ~Service() = default;

  /// Called when the head of a request is read, before its body. Null: go on. Otherwise this is the
  /// answer, and the body is not read.
  virtual SharedAnswer check_head(const IncomingRequest&, const Framing&) { return nullptr; }
  /// Called while a body arrives, for so many more bytes. False: there is no room for them.
  virtual bool reserve(std::size_t) { return true; }
  /// Called where a request ends before `begin`: the bytes reserved for its body are free again.
  virtual void give_back(std::size_t) {}

  /// Takes a complete request; `pending.send` follows, now or later. From here on the service
  /// itself accounts for what it reserved: the size of the body.
  virtual void begin(IncomingRequest&& request, PendingAnswer pending) = 0;
  /// The answer to a request for which the time has passed that `PendingAnswer::allow` gave.
  virtual SharedAnswer late(std::int64_t ticket) = 0;
  /// The answer to what never becomes a request. Null: the connection ends without an answer.
  virtual SharedAnswer refusal(const Problem& problem) = 0;

  /// The server stops: answers what is pending. Nothing begins after this.
  virtual void stopping() {}
};

}  // namespace relay::http
