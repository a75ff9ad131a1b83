#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::sqs {

/// What an answer to a batch request of `count` entries (whose ids are 0 to 9) says of each:
/// nothing where it succeeded, else why not. An entry that the answer does not name failed for a
/// reason that is not known. Transient: it is no such answer.
Result<std::vector<std::optional<Error>>> parse_batch_answer(std::string_view body,
                                                             std::string_view where,
                                                             std::size_t count);

}  // namespace relay::sqs
