#pragma once

#include <string_view>

namespace relay {

/// The code of the error by which a source says that it no longer holds what was read from it: a
/// failover to a standby that lagged, or a restored backup. Of class fenced where records are under
/// way that were read before: nothing of them may be settled.
inline constexpr std::string_view kRewound = "outbox_rewound";

}  // namespace relay
