#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace relay::redis {

/// The fields that a body becomes where each column is one: of a row message the columns of `new`,
/// or of `old` where there is no new row; of any other JSON object its members. Texts come without
/// their quotes, null is left out, everything else is the JSON text as it stands. Appends to `out`.
/// Rejected: the body is no JSON object. Misconfigured: it is a delta, which has many rows.
Result<void> read_columns(std::string_view body,
                          std::vector<std::pair<std::string, std::string>>& out);

}  // namespace relay::redis
