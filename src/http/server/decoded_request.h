#pragma once

#include <map>
#include <string>

#include "http/server/request.h"

namespace relay::http {

/// A request, with what its target says.
struct DecodedRequest {
  std::string method;                          ///< "GET"
  std::string target;                          ///< as sent: "/health?verbose=1"
  std::string path;                            ///< decoded, without the query
  std::map<std::string, std::string> query;    ///< decoded
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
};

/// A malformed escape stays as it is; of several values of one name the last one counts.
DecodedRequest decoded(IncomingRequest&& request);

}  // namespace relay::http
