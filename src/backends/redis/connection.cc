#include "backends/redis/connection.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "backends/redis/errors.h"
#include "config/tls.h"

namespace relay::redis {

namespace {

using std::chrono::milliseconds;

/// A name of a client holds no spaces and no control characters.
std::string client_name(std::string_view pipeline) {
  std::string name = "pgtrickle-relay:";
  for (const char c : pipeline) name.push_back(c > ' ' && c < '\x7f' ? c : '_');
  return name;
}

bool is_forbidden(const Reply& reply) {
  return reply.is_error() && reply.text.starts_with("NOPERM");
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(const ConnectionOptions& options,
                                                     const Endpoint& endpoint, int stop_fd) {
  std::unique_ptr<Connection> connection(new Connection(options, endpoint));
  const Deadline deadline = Deadline::after(options.connect_timeout);
  auto transport = Transport::connect(options, endpoint, deadline, stop_fd);
  if (!transport) return fail(transport.error());
  connection->transport_ = std::move(*transport);
  if (auto in = connection->log_in(options, endpoint, deadline, stop_fd); !in) {
    return fail(in.error());
  }
  return connection;
}

Result<void> Connection::log_in(const ConnectionOptions& options, const Endpoint& endpoint,
                                Deadline deadline, int stop_fd) {
  std::string bytes;
  std::vector<std::string_view> asked;  // what each reply is for
  const auto ask = [&](std::initializer_list<std::string_view> command) {
    append_command(bytes, command);
    asked.push_back(*command.begin());
  };
  if (!endpoint.user.empty()) {
    ask({"AUTH", endpoint.user, endpoint.password});
  } else if (!endpoint.password.empty()) {
    ask({"AUTH", endpoint.password});
  }
  const std::string database = std::to_string(endpoint.database);
  const std::string name = client_name(options.pipeline);
  if (endpoint.database != 0) ask({"SELECT", database});
  ask({"PING"});
  const std::size_t required = asked.size();
  ask({"CLIENT", "SETNAME", name});
  ask({"ROLE"});
  ask({"CONFIG", "GET", "proto-max-bulk-len"});

  std::vector<Reply> replies;
  start(bytes, asked.size());
  const auto finished = finish(replies, deadline, stop_fd);
  // A server may say why it ends the connection: that is the better error.
  for (std::size_t i = 0; i < std::min(replies.size(), required); ++i) {
    if (!replies[i].is_error()) continue;
    if (asked[i] == "PING" && is_forbidden(replies[i])) continue;
    return fail(refusal(replies[i].text, asked[i], address_));
  }
  if (!finished) {
    Error error = finished.error();
    if (error.code == "connection_lost") {
      error.remedy =
          "if this stays, the server may want TLS (rediss://), a client certificate (tls_cert, "
          "tls_key), or have no room for another client";
    }
    return fail(std::move(error));
  }
  const Reply& role = replies[replies.size() - 2];
  replica_ = role.is_array() && !role.elements.empty() && role.elements[0].text == "slave";
  note_max_argument(replies.back());
  return {};
}

void Connection::note_max_argument(const Reply& reply) {
  if (!reply.is_array() || reply.elements.size() != 2) return;
  const std::string& text = reply.elements[1].text;
  std::from_chars(text.data(), text.data() + text.size(), max_argument_);
}

void Connection::ask_max_argument(Deadline deadline, int stop_fd) {
  if (max_argument_ == 0) return;
  if (const auto reply = call({"CONFIG", "GET", "proto-max-bulk-len"}, deadline, stop_fd)) {
    note_max_argument(*reply);
  }
}

Result<void> Connection::end_with(Lease& lease) {
  auto cutter = SocketCutter::make(lease, transport_->socket());
  if (!cutter) return fail(cutter.error());
  cutter_ = std::move(*cutter);
  return {};
}

Error Connection::silent() const {
  return {ErrorClass::transient,
          "no_answer",
          fmt::format("Redis at {} does not answer", address_),
          "check that the server runs and is not overloaded; response_timeout says how long to "
          "wait",
          {}};
}

void Connection::start(std::string_view bytes, std::size_t replies) {
  unsent_ = bytes;
  expected_ = replies;
  while (!unsent_.empty() && sent_) {
    if (const auto sent = send_some(); sent && *sent == 0) return;
  }
}

/// A failure is kept: what the server said before it ended the connection can still be read.
Result<std::size_t> Connection::send_some() {
  auto sent = transport_->write(unsent_);
  if (sent) {
    unsent_.remove_prefix(*sent);
  } else {
    sent_ = fail(sent.error());
    unsent_ = {};
  }
  return sent;
}

Result<std::size_t> Connection::receive_some(std::vector<Reply>& replies) {
  const auto got = transport_->read(room_);
  if (!got || *got == 0) return got;
  reader_.feed(std::string_view(room_.data(), *got));
  while (replies.size() < expected_) {
    auto reply = reader_.next();
    if (!reply) return fail(reply.error());
    if (!*reply) break;
    replies.push_back(std::move(**reply));
  }
  return got;
}

Result<void> Connection::finish(std::vector<Reply>& replies, Deadline deadline, int stop_fd,
                                milliseconds silence_allowed) {
  const milliseconds patience = response_timeout_ + silence_allowed;
  Deadline silence = Deadline::after(patience);
  while (true) {
    const auto got = receive_some(replies);
    if (!got) return fail(got.error());
    if (replies.size() >= expected_) return {};
    const auto sent = send_some();
    if (*got > 0 || (sent && *sent > 0)) {
      silence = Deadline::after(patience);
      continue;
    }
    if (silence.passed() || deadline.passed()) return fail(silent());
    const auto woken = transport_->wait(!unsent_.empty(), silence.earlier(deadline), stop_fd);
    if (woken == Transport::Woken::stopped) {
      return fail(ErrorClass::cancelled, "stopped", "stopped before the answer");
    }
  }
}

Result<Reply> Connection::call(std::initializer_list<std::string_view> command, Deadline deadline,
                               int stop_fd) {
  std::string bytes;
  append_command(bytes, command);
  std::vector<Reply> replies;
  start(bytes, 1);
  if (auto finished = finish(replies, deadline, stop_fd); !finished) return fail(finished.error());
  return std::move(replies.front());
}

bool Connection::stale() {
  const auto got = transport_->read(room_);
  return !sent_ || !got || *got > 0;
}

Result<std::unique_ptr<Connection>> open_any(const ConnectionOptions& options, EndpointWalk& walk,
                                             bool master, int stop_fd) {
  const auto open = [&](const Endpoint& endpoint) -> Result<std::unique_ptr<Connection>> {
    auto connection = Connection::open(options, endpoint, stop_fd);
    if (connection && master && (*connection)->is_replica()) {
      return fail(ErrorClass::transient, "read_only",
                  fmt::format("Redis at {} is a replica", endpoint.address),
                  "name the master in url, or several servers");
    }
    if (connection && endpoint.tls && !options.tls_verify) {
      config::warn_of_no_verification(options.pipeline, endpoint.address);
    }
    return connection;
  };
  return walk.open_first(options.endpoints, open);
}

}  // namespace relay::redis
