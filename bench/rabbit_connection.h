#pragma once

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

#include <string>
#include <vector>

#include "outbox_reader.h"

namespace bench {

/// A connection with channel 1 open.
inline amqp_connection_state_t open_rabbit(const char* url) {
  std::vector<char> text(url, url + std::char_traits<char>::length(url) + 1);
  amqp_connection_info info;
  if (amqp_parse_url(text.data(), &info) != AMQP_STATUS_OK) die("reading", url);
  const amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t* const socket = amqp_tcp_socket_new(connection);
  if (amqp_socket_open(socket, info.host, info.port) != AMQP_STATUS_OK) die("opening", url);
  const auto login = amqp_login(connection, info.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN,
                                info.user, info.password);
  if (login.reply_type != AMQP_RESPONSE_NORMAL) die("logging in", url);
  amqp_channel_open(connection, 1);
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) die("opening", url);
  return connection;
}

}  // namespace bench
