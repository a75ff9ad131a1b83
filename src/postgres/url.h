#pragma once

#include <map>
#include <string>

namespace relay::postgres {

/// What a URL or connection string says, by libpq's keywords, with nothing added; empty where libpq
/// does not understand it. Never logged: it holds the password.
std::map<std::string, std::string> parse_url(const std::string& url);

}  // namespace relay::postgres
