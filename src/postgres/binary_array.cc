#include "postgres/binary_array.h"

#include <cstddef>

namespace relay::postgres {

namespace {

// https://www.postgresql.org/docs/current/protocol-overview.html: binary integers are big-endian.
// An array: dimensions, flags (1: there are NULLs), element type, and of each dimension its size
// and lower bound; then each element with its length, -1 for NULL (array_recv,
// utils/adt/arrayfuncs.c).
constexpr std::size_t kHeader = 20;

void put(std::string& out, std::size_t at, std::uint32_t value) {
  for (int byte = 0; byte < 4; ++byte) {
    out[at + static_cast<std::size_t>(byte)] = static_cast<char>(value >> (24 - 8 * byte));
  }
}

}  // namespace

BinaryArray::BinaryArray(Element element) : bytes_(kHeader, '\0') {
  put(bytes_, 0, 1);
  put(bytes_, 8, static_cast<std::uint32_t>(element));
  put(bytes_, 16, 1);
}

void BinaryArray::add(std::string_view value) {
  const std::size_t at = bytes_.size();
  bytes_.append(4, '\0');
  put(bytes_, at, static_cast<std::uint32_t>(value.size()));
  bytes_.append(value);
  ++count_;
}

void BinaryArray::add(std::int64_t value) {
  const std::size_t at = bytes_.size();
  const auto bits = static_cast<std::uint64_t>(value);
  bytes_.append(12, '\0');
  put(bytes_, at, 8);
  put(bytes_, at + 4, static_cast<std::uint32_t>(bits >> 32));
  put(bytes_, at + 8, static_cast<std::uint32_t>(bits));
  ++count_;
}

void BinaryArray::add_null() {
  bytes_.append(4, '\xff');
  ++count_;
  has_null_ = true;
}

std::string_view BinaryArray::finish() {
  put(bytes_, 4, has_null_ ? 1 : 0);
  put(bytes_, 12, count_);
  return bytes_;
}

}  // namespace relay::postgres
