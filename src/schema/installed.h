#pragma once

#include <stop_token>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "schema/difference.h"
#include "schema/manifest.h"

namespace relay::schema {

/// The number of the last migration that this program knows. A database side of a higher version is
/// a newer program's.
int version();

/// What `init` sends on the channel of the catalog when it has installed.
constexpr std::string_view kInstalledNotice = R"({"event":"installed"})";

/// Whether what is missing, changed or revoked in the database side can be the cause of the error.
bool may_explain(const Error& error);

/// What the database side consists of now. Reads PostgreSQL's catalogs only, in one statement, and
/// needs no privilege.
Result<Manifest> read_installed(postgres::Connection& connection, Deadline deadline,
                                std::stop_token stop);

/// In which points that is not what this program needs, and what the database side finds wrong with
/// its rows and with what single outboxes have (pgtrickle.relay_differences), as far as it can say.
Result<std::vector<Difference>> differences_now(postgres::Connection& connection, Deadline deadline,
                                                std::stop_token stop);

/// Codes of errors: the database side is of a later version, or of an earlier one.
constexpr std::string_view kNewerSchema = "newer_schema";
constexpr std::string_view kOlderSchema = "older_schema";

/// An error where the database side is of a version that this program does not work with: a later
/// one, or one that is too old. None where that cannot be told: there is no database side, the role
/// may not read it, or it is locked.
Result<void> refuse_other_version(postgres::Connection& connection, Deadline deadline,
                                  std::stop_token stop);

}  // namespace relay::schema
