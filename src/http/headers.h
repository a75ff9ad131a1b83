#pragma once

#include <string_view>
#include <utility>

struct curl_slist;

namespace relay::http {

/// The headers of one request.
class Headers {
 public:
  Headers() = default;
  Headers(Headers&& other) noexcept : list_(other.list_) { other.list_ = nullptr; }
  Headers& operator=(Headers&& other) noexcept {
    std::swap(list_, other.list_);
    return *this;
  }
  ~Headers();

  /// The name and the value must pass `is_header_name` and `is_header_value` (assert).
  void add(std::string_view name, std::string_view value);

 private:
  friend class Client;
  curl_slist* list_ = nullptr;
};

/// A name that HTTP allows (a token).
bool is_header_name(std::string_view name);
/// A value that cannot end a header line: no control characters but the tab.
bool is_header_value(std::string_view value);
/// A header, in any case, that speaks of a request, of its connection or to a proxy: it is neither
/// set by a configuration nor passed on with a message.
bool is_header_of_connection(std::string_view name);

}  // namespace relay::http
