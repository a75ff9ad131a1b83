#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "connector/end_report.h"
#include "core/error.h"
#include "ownership/lease_session.h"

namespace relay::stream_program {

/// What the database knows of a stream: subscriptions that make no events, and how much there is of
/// what an operator watches.
struct StreamFindings {
  std::vector<Error> problems;  ///< the code of each names its cause
  std::vector<EndReport::Number> numbers;
};

/// `stream` is its id.
Result<StreamFindings> find_in_stream(ownership::LeaseSession& session, const std::string& stream,
                                      std::stop_token stop);

}  // namespace relay::stream_program
