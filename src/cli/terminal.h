#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace relay::cli {

enum class Colour { none, bold, dim, red, green, yellow };

/// What an output stream can show. A file or a pipe gets plain text of any width.
struct Terminal {
  bool is_terminal = false;
  bool colour = false;   ///< a terminal that has it, and NO_COLOR is not set
  bool cursor = false;   ///< a terminal that obeys commands that move the cursor
  bool unicode = false;  ///< the locale's characters are UTF-8
  int descriptor = -1;

  /// Standard output and standard error, as they were when the program started.
  static const Terminal& out();
  static const Terminal& err();
  /// What the stream shows as this user's environment says.
  static Terminal of(int descriptor);

  /// The present width in columns and height in lines, which change with the window.
  struct Size {
    std::size_t columns = 80;
    std::size_t lines = 24;
  };
  Size size() const;

  /// The text in a colour, or as it is.
  std::string painted(Colour colour, std::string_view text) const;
  /// What stands for the rest of a text that was cut.
  std::string_view ellipsis() const { return unicode ? "…" : "..."; }
};

}  // namespace relay::cli
