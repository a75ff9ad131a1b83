#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/database_files.h"
#include "postgres/connection.h"

namespace relay::cli {

/// The checksum of a file of the database side, in hexadecimal digits.
std::string checksum(std::string_view text);

/// Those of the program's files that the database lacks, or has another version of. Blocks; an
/// error where the database side is not installed.
Result<std::vector<std::string>> differing_files(const std::vector<DatabaseFile>& files,
                                                 postgres::Connection& connection,
                                                 Deadline deadline);

}  // namespace relay::cli
