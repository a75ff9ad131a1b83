#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/record.h"

namespace relay::http {

/// A request as the server read it.
struct IncomingRequest {
  std::string method;
  std::string target;                                        ///< as sent, with its query
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case
  std::string body;
  Timestamp received{};  ///< when its last byte was read

  /// The value of a header, by its name in lower case. Several values are joined by ", ", as HTTP
  /// prescribes.
  std::optional<std::string> header(std::string_view name) const;
  /// Bytes of target and headers.
  std::size_t head_bytes() const;
};

/// How a request says where its body ends.
struct Framing {
  bool http_1_0 = false;
  bool length = false;
  bool chunked = false;
};

}  // namespace relay::http
