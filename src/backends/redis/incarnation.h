#pragma once

#include <string>
#include <string_view>

#include "backends/redis/codec.h"

namespace relay::redis {

/// Redis does not tell a stream from one that was deleted and made again under the same key, whose
/// entries may then have the same ids. So the first relay that reads a stream makes a consumer
/// group of this name in it, which is read by no consumer: it goes with the stream, survives
/// restarts, and only one relay can make it. Its last id is a random mark behind all entries, so
/// that it holds nothing back where entries are trimmed once all groups have them.
inline constexpr std::string_view kIncarnationGroup = "pgtrickle-incarnation";

/// A last id for a group that is made.
std::string new_incarnation_id();

/// The mark in a reply to XINFO GROUPS; empty: the stream has none.
std::string incarnation_in(const Reply& groups);

}  // namespace relay::redis
