#pragma once

#include "cli/context.h"
#include "cli/findings.h"
#include "postgres/connection.h"

namespace relay::cli {

/// Looks at every pipeline of the file and of the database: its options, its outbox, both ends
/// outside the database, and what two pipelines would take from each other. Nothing is made, moved
/// or sent.
void check_pipelines(const Context& context, postgres::Connection& connection, Findings& findings);

/// The mistakes in pipelines of the file that show without a database.
void check_file_pipelines(const Context& context, Findings& findings);

}  // namespace relay::cli
