#pragma once

#include <string>

namespace relay::http {

/// Of the library that sends the requests.
std::string library_version();

}  // namespace relay::http
