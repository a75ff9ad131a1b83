#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "postgres/connection.h"

namespace relay::cli {

/// The checksum of a file of the database side, in hexadecimal digits.
std::string checksum(std::string_view text);

/// The files that this program has and that the database lacks, or has another version of. Blocks;
/// an error where the database side is not installed.
Result<std::vector<std::string>> differing_files(postgres::Connection& connection,
                                                 Deadline deadline);

}  // namespace relay::cli
