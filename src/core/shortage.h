#pragma once

#include <exception>
#include <string_view>

#include "core/error.h"

namespace relay::shortage {

/// The error for an unexpected exception: a shortage of memory or threads, or else a defect of the
/// program. Always transient: the operation is tried again.
Error error_of(const std::exception& exception, std::string_view doing);

/// The same error, with another remedy where something could not be reached or opened because this
/// process has no file descriptor left or was refused memory.
Error explained(Error error);

/// From now on an uncaught exception ends the process with its cause and remedy on standard error:
/// with exit code 1 if the process ran out of memory or threads, else by abort().
void say_before_ending();

}  // namespace relay::shortage
