#pragma once

#include <memory>

#include "backends/file/output.h"

namespace relay::file {

/// A regular file that is appended to. Opening it cuts off what a crash left of a torn last
/// message. It is locked: two writers of one file would tear each other's messages.
Result<std::unique_ptr<Output>> open_file(const Options& options, std::stop_token stop);

/// Standard output where the shell redirected it into a regular file.
Result<std::unique_ptr<Output>> open_redirected(int fd, const Options& options);

}  // namespace relay::file
