#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string_view>

#include "backends/sqs/receipts.h"
#include "backends/sqs/service.h"

namespace relay::sqs {

/// Sends `action` for all of these, ten a request and several requests at once, with `more` inside
/// each entry (such as ,"VisibilityTimeout":30). Calls `done` for each that succeeded, and for each
/// that can never succeed (its receipt is too old: the message comes again). An error: some failed
/// for another reason.
Result<void> for_all_receipts(Service& service, std::string_view action, std::string_view queue_url,
                              std::span<const Receipts::Underway> messages, std::string_view more,
                              std::chrono::milliseconds timeout, Deadline deadline,
                              std::stop_token stop,
                              const std::function<void(std::int64_t number)>& done);

}  // namespace relay::sqs
