#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace relay {

/// Bytes of a broker as text that PostgreSQL and JSON can hold: UTF-8 without NUL as it is,
/// anything else as "base64:...".
std::string as_text(std::string_view bytes);

/// Puts a broker's headers together for Record::headers. Of several with one name the last one
/// stays. Views must live until `json`.
class HeaderObject {
 public:
  void add(std::string_view name, std::string_view value) { headers_.emplace_back(name, value); }
  /// A JSON object of text; empty where there is no header.
  std::string json() const;

 private:
  std::vector<std::pair<std::string_view, std::string_view>> headers_;
};

}  // namespace relay
