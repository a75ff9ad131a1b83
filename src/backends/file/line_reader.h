#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::file {

/// One line without its end. Valid until the reader is used again.
struct Line {
  std::string_view text;    ///< of one that is too long, only the beginning
  std::int64_t offset = 0;  ///< of its first byte
  std::int64_t next = 0;    ///< of the line behind it
  bool too_long = false;
};

/// Cuts what a descriptor gives into lines, in bounded memory. Does not own the descriptor. One
/// thread.
class LineReader {
 public:
  /// Reading begins at `offset`; only counted, not sought.
  LineReader(int descriptor, std::int64_t offset, std::size_t longest)
      : descriptor_(descriptor), longest_(longest), offset_(offset) {}

  /// The next whole line of what was read so far.
  std::optional<Line> next();
  /// Reads more; how many bytes, 0 at the end of the file. Blocks where the descriptor does.
  Result<std::size_t> read_more();
  /// At the end of a file that is no longer written: what stands behind the last line end.
  std::optional<Line> rest();

  /// Of the next line.
  std::int64_t offset() const { return offset_; }

 private:
  Line take(std::size_t length, std::size_t ending);
  void drop_overlong();

  const int descriptor_;
  const std::size_t longest_;
  std::int64_t offset_;
  std::string buffer_;
  std::size_t begin_ = 0;     // of what is not given out yet
  std::size_t searched_ = 0;  // up to here there is no line end
  std::size_t dropped_ = 0;   // bytes of a line that is too long, behind its beginning
};

}  // namespace relay::file
