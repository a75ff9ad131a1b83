#pragma once

#include "backends/rabbitmq/options.h"
#include "core/error.h"

struct amqp_socket_t_;

namespace relay::rabbitmq {

/// Says to a TLS socket of the library whom to trust, and whom to expect. The name is verified by
/// OpenSSL in the handshake, which knows IP addresses and alternative names.
Result<void> set_up_tls(amqp_socket_t_* socket, const ConnectionOptions& options,
                        const Endpoint& endpoint);

/// Why the last handshake of this thread did not trust the broker; null: it was not about that.
const char* distrust();

}  // namespace relay::rabbitmq
