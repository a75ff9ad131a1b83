#pragma once

#include <stop_token>

#include "connector/settled_rows.h"
#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::outbox {

/// Looks whether the database still holds what was settled, where that is another server, or one
/// that was started anew, since it was looked at last. What is gone is noted in `rows`.
Result<void> look_for_gone_rows(postgres::Connection& connection, SettledRows& rows,
                                Deadline deadline, std::stop_token stop);

}  // namespace relay::outbox
