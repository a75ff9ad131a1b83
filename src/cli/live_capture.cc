#include "cli/live_capture.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

namespace relay::cli {

namespace {

constexpr int kDrawEveryMs = 100;

void close_one(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

}  // namespace

LiveCapture::Stream::Stream(int descriptor) : descriptor_(descriptor) {
  std::fflush(nullptr);
  std::array<int, 2> ends{-1, -1};
  saved_ = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  if (saved_ < 0 || ::pipe2(ends.data(), O_CLOEXEC) != 0) return;
  source_ = ends[0];
  ::dup2(ends[1], descriptor);
  ::close(ends[1]);
}

/// Ends the pipe: no other descriptor of the process writes to it.
void LiveCapture::Stream::restore() {
  std::fflush(nullptr);
  if (source_ >= 0 && saved_ >= 0) ::dup2(saved_, descriptor_);
}

LiveCapture::Stream::~Stream() {
  restore();
  close_one(source_);
  close_one(saved_);
}

template <class Use>
bool LiveCapture::Stream::read_lines(const Use& use) {
  std::array<char, 65536> bytes;
  const ssize_t count = ::read(source_, bytes.data(), bytes.size());
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  if (count == 0) return false;
  rest_.append(bytes.data(), static_cast<std::size_t>(count));
  std::size_t begin = 0;
  for (std::size_t end; (end = rest_.find('\n', begin)) != rest_.npos; begin = end + 1) {
    use(std::string_view(rest_).substr(begin, end - begin));
  }
  rest_.erase(0, begin);
  return true;
}

std::unique_ptr<LiveCapture> LiveCapture::begin(std::string title) {
  if (!Terminal::out().cursor) return nullptr;
  return std::unique_ptr<LiveCapture>(new LiveCapture(std::move(title)));
}

LiveCapture::LiveCapture(std::string title)
    : out_(STDOUT_FILENO),
      errors_(Terminal::err().is_terminal ? std::make_unique<Stream>(STDERR_FILENO) : nullptr),
      screen_(out_.saved(), std::move(title)),
      thread_([this](std::stop_token stop) { run(stop); }) {}

LiveCapture::~LiveCapture() {
  out_.restore();
  if (errors_) errors_->restore();
  thread_.request_stop();
  thread_.join();
}

/// Reads on until both pipes have ended: what was written before the end is shown too.
void LiveCapture::run(std::stop_token stop) {
  std::array<pollfd, 2> sources{pollfd{out_.source(), POLLIN, 0},
                                pollfd{errors_ ? errors_->source() : -1, POLLIN, 0}};
  while (sources[0].fd >= 0 || sources[1].fd >= 0) {
    ::poll(sources.data(), sources.size(), kDrawEveryMs);
    if (sources[0].fd >= 0 && sources[0].revents != 0 &&
        !out_.read_lines([&](std::string_view line) { screen_.take(line); })) {
      sources[0].fd = -1;
    }
    if (sources[1].fd >= 0 && sources[1].revents != 0 &&
        !errors_->read_lines([&](std::string_view line) { screen_.note(std::string(line)); })) {
      sources[1].fd = -1;
    }
    const bool quiet = sources[0].revents == 0 && sources[1].revents == 0;
    // A process that was started meanwhile may still hold a pipe.
    if (stop.stop_requested() && quiet) return;
    screen_.draw();
  }
}

}  // namespace relay::cli
