#pragma once

#include "core/error.h"

namespace relay::state {

/// The same error, with the way to install the database side where that is what is missing.
Error explain_missing_schema(Error error);

}  // namespace relay::state
