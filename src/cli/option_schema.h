#pragma once

#include <string>

#include "connector/registry.h"

namespace relay::cli {

/// A JSON Schema (draft 2020-12) of a configuration file, from the tables of options by which the
/// program checks it. "#/$defs/config" is that of the configuration that pgtrickle.set_relay takes.
/// It says what single options are and which belong together, not what their values mean together.
std::string option_schema(const Registry& registry);

}  // namespace relay::cli
