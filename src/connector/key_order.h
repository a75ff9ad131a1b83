#pragma once

#include "config/option_table.h"

namespace relay {

/// How many messages of one key a sink may have under way. What `automatic` comes to, each sink's
/// option `key_order` says.
enum class KeyOrder { automatic, one, pipelined };

/// The words of the option `key_order`.
inline constexpr config::Choice<KeyOrder> kKeyOrders[] = {
    {"auto", KeyOrder::automatic}, {"one", KeyOrder::one}, {"pipelined", KeyOrder::pipelined}};

}  // namespace relay
