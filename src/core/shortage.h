#pragma once

#include <exception>
#include <string_view>

#include "core/error.h"

namespace relay::shortage {

/// The error of an exception that was not expected where it arrived: what this process has run out
/// of (memory, threads), else a defect of the program. Always transient: it is tried again.
Error error_of(const std::exception& exception, std::string_view doing);

/// The same error. Where it tells that something could not be reached or opened, and this process
/// has no file descriptor left, or memory was refused, that is said instead of the usual remedy.
Error explained(Error error);

/// From now on an exception that nothing handles ends the process with its cause and remedy on
/// standard error: with exit code 1 where the process has run out of something, by abort() else.
void say_before_ending();

}  // namespace relay::shortage
