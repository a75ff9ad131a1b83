#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace relay {

/// Memory that lives as long as a batch: text is copied in, views point at it, and all of it ends
/// at once. Views stay valid when the arena is moved. Every text has `kPadding` readable bytes
/// behind it, as simdjson asks of its input. One thread at a time.
class Arena {
 public:
  static constexpr std::size_t kPadding = 64;

  Arena() = default;
  Arena(Arena&&) noexcept = default;
  Arena& operator=(Arena&&) noexcept = default;

  /// A copy of `text` that the arena owns.
  std::string_view copy(std::string_view text);
  /// Room for `size` bytes (and the padding), not initialised.
  char* allocate(std::size_t size);
  /// Takes over all that another arena owns; views into it stay valid.
  void absorb(Arena&& other);
  /// Bytes handed out so far.
  std::size_t size() const { return used_; }

 private:
  static constexpr std::size_t kChunk = 64 * 1024;

  std::vector<std::unique_ptr<char[]>> chunks_;
  char* next_ = nullptr;
  std::size_t left_ = 0;
  std::size_t used_ = 0;
};

}  // namespace relay
