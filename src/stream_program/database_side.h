#pragma once

#include <stop_token>

#include "core/error.h"
#include "postgres/connection.h"

namespace relay::stream_program {

/// Installs or upgrades the schema `pgstream` where it is another one than this program's, in one
/// transaction; true: it did. Misconfigured: the server or the role does not allow it, or a newer
/// program has installed it. After an error nothing has changed.
Result<bool> install(postgres::Connection& connection, std::stop_token stop);

/// Misconfigured: a server that is too old, or a standby. Changes nothing.
Result<void> check_server(postgres::Connection& connection, std::stop_token stop);

}  // namespace relay::stream_program
