#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace relay::postgres {

/// Reads a message of PostgreSQL's protocols: integers in network order and texts that end with a
/// zero byte. Past the end it gives zeros and empty texts, and `ok()` is false from then on.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }
  std::string_view rest() const { return rest_; }

  std::uint8_t byte() { return integer<std::uint8_t>(); }
  std::uint16_t int16() { return integer<std::uint16_t>(); }
  std::uint32_t int32() { return integer<std::uint32_t>(); }
  std::uint64_t int64() { return integer<std::uint64_t>(); }

  std::string_view bytes(std::size_t count) {
    if (count > rest_.size()) return past_the_end();
    const std::string_view read = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return read;
  }

  std::string_view text() {
    const auto zero = rest_.find('\0');
    if (zero == std::string_view::npos) return past_the_end();
    const std::string_view read = rest_.substr(0, zero);
    rest_.remove_prefix(zero + 1);
    return read;
  }

 private:
  std::string_view rest_;
  bool ok_ = true;

  std::string_view past_the_end() {
    ok_ = false;
    rest_ = {};
    return {};
  }

  template <class Integer>
  Integer integer() {
    const std::string_view read = bytes(sizeof(Integer));
    Integer value = 0;
    for (const char c : read) {
      value = static_cast<Integer>(static_cast<std::uint64_t>(value) << 8 |
                                   static_cast<unsigned char>(c));
    }
    return value;
  }
};

}  // namespace relay::postgres
