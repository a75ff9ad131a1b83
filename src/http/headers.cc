#include "http/headers.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <string>

#include "core/text.h"

namespace relay::http {

Headers::~Headers() {
  curl_slist_free_all(list_);
}

void Headers::add(std::string_view name, std::string_view value) {
  assert(is_header_name(name) && is_header_value(value));
  std::string line(name);
  // "Name:" would take a header away: https://curl.se/libcurl/c/CURLOPT_HTTPHEADER.html
  if (value.empty()) {
    line += ';';
  } else {
    line += ": ";
    line += value;
  }
  if (curl_slist* longer = curl_slist_append(list_, line.c_str())) list_ = longer;
}

bool is_header_name(std::string_view name) {
  static constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kOthers.find(c) != std::string_view::npos;
  });
}

bool is_header_value(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7f;
  });
}

bool is_header_of_connection(std::string_view name) {
  static constexpr std::array<std::string_view, 11> kNames = {"host",
                                                              "content-length",
                                                              "transfer-encoding",
                                                              "connection",
                                                              "keep-alive",
                                                              "te",
                                                              "trailer",
                                                              "upgrade",
                                                              "expect",
                                                              "proxy-authorization",
                                                              "proxy-connection"};
  return std::ranges::any_of(
      kNames, [name](std::string_view other) { return equal_ignoring_case(name, other); });
}

}  // namespace relay::http
