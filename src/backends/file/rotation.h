#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <string_view>

namespace relay::file {

/// "<path>.20260427T101503.412Z": the next millisecond that is not taken, so that names sort in the
/// order of rotation.
std::string rotated_name(const std::string& path, std::chrono::system_clock::time_point now);

/// Makes "<name>.gz" of each rotated file of `path`, and removes the file once its copy is safe.
/// Ends early on a stop; what is left then is compressed the next time. Trouble is logged: it never
/// hinders delivery.
void compress_rotated(const std::string& path, std::string_view pipeline, std::stop_token stop);

}  // namespace relay::file
