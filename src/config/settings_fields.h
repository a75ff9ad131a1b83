#pragma once

#include "config/fields.h"

namespace relay::config {

/// The settings that [global] of a file may hold.
FieldTable file_settings_fields();

}  // namespace relay::config
