#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "backends/file/options.h"
#include "core/error.h"
#include "core/message.h"

namespace relay::file {

/// The line (or, pretty, the lines) of one message, its newline included. Pure.
///
/// jsonl: the body, with whitespace outside strings taken out where it holds a line break; a body
/// that is not JSON becomes a JSON string. json_pretty: the body, indented. csv (RFC 4180): id,
/// subject, key, op, created_at, body. Numbers are never touched. Rejected: what the format cannot
/// hold; then nothing is appended.
Result<void> append_message(std::string& out, Format format, const Message& message);

/// What a new file begins with.
std::string_view header_of(Format format);

/// Finds where the last whole message of a file ends, fed with the file's bytes from the start.
/// What comes after it was torn off by a crash in the middle of a write.
class WholeMessages {
 public:
  explicit WholeMessages(Format format) : format_(format) {}

  void feed(std::string_view bytes);
  /// Bytes up to and including the end of the last whole message.
  std::size_t size() const { return whole_; }

 private:
  void end_of_line();

  Format format_;
  std::size_t fed_ = 0;
  std::size_t whole_ = 0;
  bool quoted_ = false;     // csv: inside a quoted field
  std::string line_start_;  // json_pretty: the first two characters of this line
};

}  // namespace relay::file
