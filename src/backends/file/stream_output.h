#pragma once

#include <memory>
#include <string>

#include "backends/file/output.h"

namespace relay::file {

/// Standard output where it is a pipe, a terminal or a device, or a named pipe. `write` waits for a
/// slow reader, together with the stop.
Result<std::unique_ptr<Output>> open_stream(int fd, std::string name, const Lease& lease);
Result<std::unique_ptr<Output>> open_stream(const std::string& path, const Lease& lease);

}  // namespace relay::file
