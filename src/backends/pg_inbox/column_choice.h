#pragma once

#include <map>
#include <string>

#include "backends/pg_inbox/options.h"
#include "backends/pg_inbox/table_facts.h"
#include "backends/pg_inbox/target.h"
#include "core/error.h"

namespace relay::pg_inbox {

/// Chooses the column for each part of a message, by the names that `options` or the catalog of
/// inboxes (`names`) give; the statements are left empty. Misconfigured: the table would lose
/// messages (its ids are not kept apart, a column cuts what it is given), or every message would be
/// refused. Does no I/O.
Result<Target> choose_columns(const TableFacts& facts, const Options& options,
                              const std::map<std::string, std::string>& names);

}  // namespace relay::pg_inbox
