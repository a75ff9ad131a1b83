#include "core/arena.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace relay {

char* Arena::allocate(std::size_t size) {
  const std::size_t needed = size + kPadding;
  used_ += size;
  if (needed > kChunk / 4) {
    chunks_.push_back(std::make_unique_for_overwrite<char[]>(needed));
    return chunks_.back().get();
  }
  if (needed > left_) {
    chunks_.push_back(std::make_unique_for_overwrite<char[]>(kChunk));
    next_ = chunks_.back().get();
    left_ = kChunk;
  }
  char* place = next_;
  // The padding of one text may hold the next text: simdjson needs readable bytes only.
  next_ += size;
  left_ -= size;
  return place;
}

void Arena::absorb(Arena&& other) {
  // The chunk that is being filled stays this arena's own.
  chunks_.insert(chunks_.end(), std::make_move_iterator(other.chunks_.begin()),
                 std::make_move_iterator(other.chunks_.end()));
  used_ += other.used_;
  other = Arena();
}

std::string_view Arena::copy(std::string_view text) {
  if (text.empty()) return {};
  char* place = allocate(text.size());
  std::memcpy(place, text.data(), text.size());
  return {place, text.size()};
}

}  // namespace relay
