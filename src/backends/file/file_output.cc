#include "backends/file/file_output.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <utility>

#include "backends/file/descriptor.h"
#include "backends/file/format.h"
#include "backends/file/rotation.h"
#include "core/log.h"

namespace relay::file {

namespace {

using std::chrono::system_clock;

/// Appends at the end of the file that the descriptor is of.
class Appender {
 public:
  Appender(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}

  Output::Written write(std::string_view bytes) const {
    Output::Written written;
    while (written.bytes < bytes.size()) {
      const ssize_t done = ::write(fd_, bytes.data() + written.bytes, bytes.size() - written.bytes);
      if (done >= 0) {
        written.bytes += static_cast<std::size_t>(done);
      } else if (errno != EINTR) {
        written.error = std::make_shared<Error>(system_error(errno, "writing to", name_));
        return written;
      }
    }
    return written;
  }

  /// Cuts the file off at `size`, and goes on there.
  bool cut(std::int64_t size) const {
    return ::ftruncate(fd_, size) == 0 && ::lseek(fd_, size, SEEK_SET) == size;
  }

  Result<void> sync() const {
    if (::fdatasync(fd_) == 0 || errno == EINVAL || errno == EROFS) return {};
    return fail(system_error(errno, "syncing", name_));
  }

 private:
  int fd_;
  std::string name_;
};

Result<void> sync_directory_of(const std::string& path) {
  const auto directory = std::filesystem::absolute(path).parent_path();
  const Descriptor descriptor(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor) return fail(system_error(errno, "opening", directory.string()));
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL) {
    return fail(system_error(errno, "syncing", directory.string()));
  }
  return {};
}

/// When the file was made, as far as the file system knows.
system_clock::time_point birth_of(int fd) {
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &status) == 0 &&
      (status.stx_mask & STATX_BTIME) != 0) {
    return system_clock::time_point(std::chrono::seconds(status.stx_btime.tv_sec));
  }
  return system_clock::now();
}

class FileOutput : public Output {
 public:
  explicit FileOutput(const Options& options) : options_(options) {}

  Result<void> open() {
    Descriptor file(::open(options_.path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
    if (!file) return fail(system_error(errno, "opening", options_.path));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      return fail(ErrorClass::transient, "file_in_use",
                  fmt::format("another writer has {}", options_.path),
                  "give each pipeline a file of its own; after a crash this ends by itself");
    }
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) {
      return fail(system_error(errno, "looking at", options_.path));
    }
    file_ = std::move(file);
    inode_ = status.st_ino;
    size_ = status.st_size;
    born_ = size_ == 0 ? system_clock::now() : birth_of(file_.get());
    if (auto cut = cut_torn_end(); !cut) return cut;
    return options_.fsync ? sync_directory_of(options_.path) : Result<void>{};
  }

  Written write(std::string_view bytes, Deadline, std::stop_token) override {
    auto written = appender().write(bytes);
    size_ += static_cast<std::int64_t>(written.bytes);
    return written;
  }

  bool take_back(std::size_t bytes) override {
    const std::int64_t size = size_ - static_cast<std::int64_t>(bytes);
    if (!appender().cut(size)) return false;
    size_ = size;
    return true;
  }

  Result<void> sync() override { return options_.fsync ? appender().sync() : Result<void>{}; }

  Result<bool> prepare(std::size_t bytes, std::stop_token stop) override {
    const auto age = system_clock::now() - born_;
    const bool too_large = options_.rotate_bytes > 0 && size_ > 0 &&
                           size_ + static_cast<std::int64_t>(bytes) > options_.rotate_bytes;
    const bool too_old =
        options_.rotate_interval.count() > 0 && size_ > 0 && age >= options_.rotate_interval;
    const bool moved = !still_there();
    if (!moved && !too_large && !too_old) return false;
    if (auto synced = sync(); !synced) return fail(synced.error());
    if (auto begun = moved ? open() : rotate(stop); !begun) return fail(begun.error());
    return true;
  }

  bool is_new() const override { return size_ == 0; }

 private:
  Appender appender() const { return {file_.get(), options_.path}; }

  /// False when the file was moved or removed, as logrotate does.
  bool still_there() const {
    struct stat status {};
    return ::stat(options_.path.c_str(), &status) == 0 && status.st_ino == inode_;
  }

  Result<void> cut_torn_end() {
    WholeMessages whole(options_.format);
    // Reading backwards would do for jsonl, where the end of a line is always the end of a message.
    std::int64_t from = 0;
    if (options_.format == Format::jsonl) from = last_line_break();
    std::array<char, 65536> buffer;
    for (std::int64_t at = from; at < size_;) {
      const ssize_t got = ::pread(file_.get(), buffer.data(), buffer.size(), at);
      if (got < 0) return fail(system_error(errno, "reading", options_.path));
      if (got == 0) break;
      whole.feed({buffer.data(), static_cast<std::size_t>(got)});
      at += got;
    }
    const std::int64_t end = from + static_cast<std::int64_t>(whole.size());
    if (end == size_) return {};
    log::warn("torn_message_removed", options_.pipeline,
              "{}: {} bytes of a message that a crash tore were cut off", options_.path,
              size_ - end);
    if (!appender().cut(end)) return fail(system_error(errno, "truncating", options_.path));
    size_ = end;
    return appender().sync();
  }

  /// Where the last line that is ended by a line break begins; 0 when there is none.
  std::int64_t last_line_break() const {
    std::array<char, 65536> buffer;
    for (std::int64_t end = size_; end > 0;) {
      const std::int64_t from = std::max<std::int64_t>(0, end - std::int64_t{buffer.size()});
      const ssize_t got =
          ::pread(file_.get(), buffer.data(), static_cast<std::size_t>(end - from), from);
      if (got <= 0) return 0;
      const auto at = std::string_view(buffer.data(), static_cast<std::size_t>(got)).rfind('\n');
      if (at != std::string_view::npos) return from + static_cast<std::int64_t>(at);
      end = from;
    }
    return 0;
  }

  Result<void> rotate(std::stop_token stop) {
    const std::string rotated = rotated_name(options_.path, system_clock::now());
    if (::rename(options_.path.c_str(), rotated.c_str()) != 0) {
      return fail(system_error(errno, "renaming", options_.path));
    }
    file_.reset();
    if (auto opened = open(); !opened) return opened;
    if (options_.compress_rotated) compress_rotated(options_.path, options_.pipeline, stop);
    return {};
  }

  const Options options_;
  Descriptor file_;
  ino_t inode_ = 0;
  std::int64_t size_ = 0;
  system_clock::time_point born_{};
};

class RedirectedOutput : public Output {
 public:
  RedirectedOutput(int fd, bool fsync, std::int64_t at)
      : appender_(fd, "standard output"), fsync_(fsync), at_(at) {}

  Written write(std::string_view bytes, Deadline, std::stop_token) override {
    auto written = appender_.write(bytes);
    at_ += static_cast<std::int64_t>(written.bytes);
    return written;
  }
  bool take_back(std::size_t bytes) override {
    if (!appender_.cut(at_ - static_cast<std::int64_t>(bytes))) return false;
    at_ -= static_cast<std::int64_t>(bytes);
    return true;
  }
  Result<void> sync() override { return fsync_ ? appender_.sync() : Result<void>{}; }
  Result<bool> prepare(std::size_t, std::stop_token) override { return false; }
  bool is_new() const override { return at_ == 0; }

 private:
  Appender appender_;
  bool fsync_;
  std::int64_t at_;
};

}  // namespace

Result<std::unique_ptr<Output>> open_file(const Options& options, std::stop_token stop) {
  auto output = std::make_unique<FileOutput>(options);
  if (auto opened = output->open(); !opened) return fail(opened.error());
  if (options.compress_rotated) compress_rotated(options.path, options.pipeline, stop);
  return output;
}

Result<std::unique_ptr<Output>> open_redirected(int fd, const Options& options) {
  const int flags = ::fcntl(fd, F_GETFL);
  const bool appends = flags >= 0 && (flags & O_APPEND) != 0;
  const off_t at = ::lseek(fd, 0, appends ? SEEK_END : SEEK_CUR);
  if (at < 0) return fail(system_error(errno, "looking at", "standard output"));
  return std::make_unique<RedirectedOutput>(fd, options.fsync, at);
}

}  // namespace relay::file
