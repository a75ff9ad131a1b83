#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "connector/source.h"
#include "core/deadline.h"
#include "core/error.h"
#include "outbox/horizon.h"
#include "outbox/outbox_info.h"
#include "postgres/connection.h"

namespace relay::outbox {

/// The tip of the outbox, with its first row beyond `beyond`.
Result<Tip> read_tip(postgres::Connection& connection, const OutboxInfo& outbox,
                     std::int64_t beyond, Deadline deadline, std::stop_token stop);

/// The transactions that may have drawn ids and not ended. To be asked after the sequence was read,
/// in a statement of its own: each transaction that drew an id up to there is then among them.
Result<std::vector<Holder>> read_holders(postgres::Connection& connection, const OutboxInfo& outbox,
                                         Deadline deadline, std::stop_token stop);

/// The writer that has been open longest. Its age is -1 where the role may not see it.
Result<OpenWriter> read_oldest_writer(postgres::Connection& connection, const OutboxInfo& outbox,
                                      Deadline deadline, std::stop_token stop);

}  // namespace relay::outbox
