#include "stream/decoding_failures.h"

#include <array>
#include <string_view>

namespace relay::stream {

namespace {

/// Classes of SQLSTATE that say nothing of what is decoded: the connection, the role, the database,
/// resources, an object's state, and the operator.
constexpr std::array<std::string_view, 6> kOtherClasses = {"08", "28", "3D", "53", "55", "57"};

bool is_of_decoding(std::string_view code) {
  if (code.size() != 5) return false;  // no SQLSTATE: the server is gone
  for (const std::string_view other : kOtherClasses) {
    if (code.starts_with(other)) return false;
  }
  return true;
}

}  // namespace

void DecodingFailures::add(const Error& error, std::int64_t last_n) {
  if (!is_of_decoding(error.code)) return;
  count_ = last_n == last_n_ ? count_ + 1 : 1;
  last_n_ = last_n;
}

}  // namespace relay::stream
