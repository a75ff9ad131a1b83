#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace relay::postgres {

/// An array in PostgreSQL's binary form, to be given as one parameter (Connection::query_binary).
class BinaryArray {
 public:
  /// Their OIDs, which are the same everywhere.
  enum class Element : std::uint32_t { bytea = 17, int8 = 20, text = 25 };

  explicit BinaryArray(Element element);
  /// A text or bytea.
  void add(std::string_view value);
  /// An int8.
  void add(std::int64_t value);
  void add_null();
  /// The current array; valid until the next `add`.
  std::string_view finish();

 private:
  std::string bytes_;
  std::uint32_t count_ = 0;
  bool has_null_ = false;
};

}  // namespace relay::postgres
