#pragma once

#include <stop_token>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "schema/difference.h"
#include "schema/manifest.h"

namespace relay::schema {

/// Takes what an upgrade has replaced and could not drop yet out of what was found, and says in one
/// warning what keeps it: transactions that began before the upgrade, or objects of users. Nothing
/// where the role may not read that. Call outside of a transaction.
Result<std::vector<Difference>> take_superseded(Manifest& found, postgres::Connection& connection,
                                                Deadline deadline, std::stop_token stop);

}  // namespace relay::schema
