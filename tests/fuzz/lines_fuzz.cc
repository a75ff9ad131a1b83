// What a file or a pipe gives, in two pieces: lines, each exactly its bytes, with no byte between
// them. The first byte says where it is cut, the second how long a line may be.

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "backends/file/line_reader.h"

namespace {

using namespace relay::file;

void require(bool holds) {
  if (!holds) std::abort();
}

/// The bytes that a line was made of, without its end; where it is too long, their beginning.
void check(const Line& line, std::string_view all, std::int64_t begin, std::size_t longest) {
  require(line.offset == begin && line.next > begin);
  require(line.next <= static_cast<std::int64_t>(all.size()));
  std::string_view bytes =
      all.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(line.next - begin));
  if (bytes.ends_with('\n')) bytes.remove_suffix(1);
  require(bytes.find('\n') == std::string_view::npos);
  require(line.too_long == (bytes.size() > longest));
  if (!line.too_long && bytes.ends_with('\r')) bytes.remove_suffix(1);
  require(line.too_long ? bytes.starts_with(line.text) : bytes == line.text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::size_t cut = all.size() * data[0] / 255;
  const std::size_t longest = std::size_t{8} * data[1];
  std::array<int, 2> ends{};
  require(::pipe(ends.data()) == 0);
  LineReader reader(ends[0], 0, longest);
  std::int64_t behind = 0;
  const auto take = [&](std::optional<Line> line) {
    if (!line) return false;
    check(*line, all, behind, longest);
    behind = line->next;
    return true;
  };
  for (const std::string_view piece : {all.substr(0, cut), all.substr(cut)}) {
    if (piece.empty()) continue;
    require(::write(ends[1], piece.data(), piece.size()) == static_cast<ssize_t>(piece.size()));
    require(reader.read_more() == piece.size());
    while (take(reader.next())) {
    }
  }
  take(reader.rest());
  require(behind == static_cast<std::int64_t>(all.size()));
  ::close(ends[0]);
  ::close(ends[1]);
  return 0;
}
