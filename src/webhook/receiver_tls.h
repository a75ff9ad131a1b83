#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "core/error.h"
#include "webhook/receiver_options.h"

namespace relay::webhook {

/// The receiver's side of TLS 1.2 and 1.3; null where the options ask for none. For receiver.cc.
/// Misconfigured: a file that cannot be used.
Result<std::unique_ptr<boost::asio::ssl::context>> make_tls(const ReceiverOptions& options);

}  // namespace relay::webhook
