#pragma once

#include "cli/context.h"
#include "cli/findings.h"
#include "postgres/connection.h"

namespace relay::cli {

/// Looks at every pipeline of the file and of the database: its options, its outbox, both ends
/// outside the database, and whether two pipelines would take messages from each other. Nothing is
/// created, moved or sent.
void check_pipelines(const Context& context, postgres::Connection& connection, Findings& findings);

/// Reports the mistakes in pipelines of the file that can be found without a database.
void check_file_pipelines(const Context& context, Findings& findings);

}  // namespace relay::cli
