#include "backends/file/stream_output.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <optional>
#include <utility>

#include "backends/file/descriptor.h"
#include "core/stop_event.h"

namespace relay::file {

namespace {

/// Between two looks at the lease. A larger pipe is filled by several writes.
constexpr std::size_t kMostAtOnce = 64u << 10;

/// The write to a pipe without a reader shall return EPIPE, not end the process.
void ignore_broken_pipes() {
  struct sigaction action {};
  if (::sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &action, nullptr);
  }
}

class StreamOutput : public Output {
 public:
  StreamOutput(Descriptor own, int fd, std::string name, const Lease& lease)
      : own_(std::move(own)), fd_(fd), name_(std::move(name)), lease_(lease) {
    // Non-blocking is a property of the open file, which a shell may share with us: we leave it as
    // it is, and write no more at once than poll() promises to take.
    const int flags = ::fcntl(fd_, F_GETFL);
    at_once_ = flags >= 0 && (flags & O_NONBLOCK) != 0 ? kMostAtOnce : PIPE_BUF;
  }

  Written write(std::string_view bytes, Deadline deadline, std::stop_token stop) override {
    const StopEvent stopping(stop);
    Written written;
    while (written.bytes < bytes.size()) {
      if (auto error = wait(stopping, deadline)) {
        written.error = std::make_shared<Error>(std::move(*error));
        return written;
      }
      if (!lease_.holds()) {
        written.error = share(lease_over());
        return written;
      }
      const auto rest = bytes.substr(written.bytes, at_once_);
      const ssize_t done = ::write(fd_, rest.data(), rest.size());
      if (done >= 0) {
        written.bytes += static_cast<std::size_t>(done);
        new_ = false;
      } else if (errno != EINTR && errno != EAGAIN) {
        written.error = std::make_shared<Error>(failure(errno));
        return written;
      }
    }
    return written;
  }

  bool take_back(std::size_t bytes) override { return bytes == 0; }
  Result<void> sync() override { return {}; }
  Result<bool> prepare(std::size_t, std::stop_token) override { return false; }
  bool is_new() const override { return new_; }
  bool is_stream() const override { return true; }

 private:
  std::optional<Error> wait(const StopEvent& stopping, Deadline deadline) const {
    pollfd waits[2] = {{fd_, POLLOUT, 0}, {stopping.fd(), POLLIN, 0}};
    while (true) {
      const int ready = ::poll(waits, 2, static_cast<int>(deadline.left().count()));
      if (ready < 0 && errno == EINTR) continue;
      if (waits[0].revents != 0) return std::nullopt;  // an error too: write() says which
      if (waits[1].revents != 0) {
        return Error{
            ErrorClass::cancelled, "stopped", fmt::format("stopped writing to {}", name_), {}, {}};
      }
      return Error{ErrorClass::transient,
                   "slow_reader",
                   fmt::format("the reader of {} does not keep up", name_),
                   "nothing is lost: the relay waits for it",
                   {}};
    }
  }

  Error failure(int number) const {
    if (number != EPIPE) return system_error(number, "writing to", name_);
    return {ErrorClass::misconfigured,
            "reader_gone",
            fmt::format("the reader of {} is gone", name_),
            "start the relay with its output attached to a reader that stays, or set path",
            {}};
  }

  Descriptor own_;
  int fd_;
  std::string name_;
  const Lease& lease_;
  std::size_t at_once_;
  bool new_ = true;
};

}  // namespace

Result<std::unique_ptr<Output>> open_stream(int fd, std::string name, const Lease& lease) {
  ignore_broken_pipes();
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return fail(ErrorClass::misconfigured, "closed", fmt::format("{} is closed", name),
                "start the relay with its output open, or set path");
  }
  // Opened anew, a pipe or a terminal is ours to make non-blocking. Where that is not allowed, the
  // descriptor that we were given serves, a page at a time.
  Descriptor own;
  if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
    own = Descriptor(::open(fmt::format("/proc/self/fd/{}", fd).c_str(),
                            O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  }
  // A larger pipe lets the reader take more at a time. Where it is refused, the usual one serves.
  if (S_ISFIFO(status.st_mode)) ::fcntl(fd, F_SETPIPE_SZ, 1 << 20);
  const int used = own ? own.get() : fd;
  return std::make_unique<StreamOutput>(std::move(own), used, std::move(name), lease);
}

Result<std::unique_ptr<Output>> open_stream(const std::string& path, const Lease& lease) {
  ignore_broken_pipes();
  Descriptor own(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!own) {
    if (errno == ENXIO) {
      return fail(ErrorClass::transient, "no_reader", fmt::format("{} has no reader", path),
                  "start the reader of this pipe");
    }
    return fail(system_error(errno, "opening", path));
  }
  const int fd = own.get();
  return std::make_unique<StreamOutput>(std::move(own), fd, path, lease);
}

}  // namespace relay::file
