#pragma once

#include "config/fields.h"

namespace relay {

/// How many messages of one key a sink may have under way. What `automatic` comes to, each sink's
/// option `key_order` says.
enum class KeyOrder { automatic, one, pipelined };

/// The option `key_order`, a choice of auto, one and pipelined.
inline KeyOrder read_key_order(const config::Values& values) {
  const std::string text = values.text("key_order");
  if (text == "one") return KeyOrder::one;
  return text == "pipelined" ? KeyOrder::pipelined : KeyOrder::automatic;
}

}  // namespace relay
