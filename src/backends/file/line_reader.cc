#include "backends/file/line_reader.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace relay::file {

namespace {

constexpr std::size_t kChunk = 256 * 1024;
constexpr std::size_t kShownOfOverlong = 1024;

}  // namespace

std::optional<Line> LineReader::next() {
  const auto end = buffer_.find('\n', searched_);
  if (end == std::string::npos) {
    searched_ = buffer_.size();
    drop_overlong();
    return std::nullopt;
  }
  return take(end - begin_, 1);
}

std::optional<Line> LineReader::rest() {
  if (begin_ == buffer_.size()) return std::nullopt;
  return take(buffer_.size() - begin_, 0);
}

Line LineReader::take(std::size_t length, std::size_t ending) {
  Line line;
  line.offset = offset_;
  line.next = offset_ + static_cast<std::int64_t>(length + ending + dropped_);
  line.too_long = length + dropped_ > longest_;
  line.text = std::string_view(buffer_).substr(begin_, length);
  if (line.too_long) line.text = line.text.substr(0, kShownOfOverlong);
  if (!line.too_long && line.text.ends_with('\r')) line.text.remove_suffix(1);
  begin_ += length + ending;
  searched_ = begin_;
  dropped_ = 0;
  offset_ = line.next;
  return line;
}

/// Of a line that is too long already, only the beginning is kept.
void LineReader::drop_overlong() {
  const std::size_t length = buffer_.size() - begin_;
  if (length + dropped_ <= longest_ || length <= kShownOfOverlong) return;
  dropped_ += length - kShownOfOverlong;
  buffer_.resize(begin_ + kShownOfOverlong);
  searched_ = buffer_.size();
}

Result<std::size_t> LineReader::read_more() {
  buffer_.erase(0, begin_);
  searched_ -= begin_;
  begin_ = 0;
  const std::size_t had = buffer_.size();
  buffer_.resize(had + kChunk);
  ssize_t got = -1;
  do {
    got = ::read(descriptor_, buffer_.data() + had, kChunk);
  } while (got < 0 && errno == EINTR);
  const int error = errno;
  buffer_.resize(had + static_cast<std::size_t>(got < 0 ? 0 : got));
  if (got >= 0) return static_cast<std::size_t>(got);
  if (error == EAGAIN) return std::size_t{0};
  return fail(ErrorClass::transient, "read_failed",
              fmt::format("reading failed: {}", std::strerror(error)), "look at the disk");
}

}  // namespace relay::file
