#include "backends/file/position_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "backends/file/descriptor.h"

namespace relay::file {

namespace {

tl::unexpected<Error> failed(const std::string& path, std::string_view doing) {
  const int error = errno;
  const bool mistake = error == EACCES || error == ENOENT || error == EROFS || error == EISDIR ||
                       error == ENOTDIR || error == EPERM;
  return fail(
      mistake ? ErrorClass::misconfigured : ErrorClass::transient, "position_file",
      fmt::format("the position file {} cannot be {}: {}", path, doing, std::strerror(error)),
      "set position_file to a place where the relay may write");
}

}  // namespace

Result<std::optional<FilePosition>> PositionFile::read() const {
  const Descriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    return failed(path_, "read");
  }
  char text[256] = {};
  const ssize_t size = ::read(file.get(), text, sizeof text - 1);
  if (size < 0) return failed(path_, "read");
  FilePosition position;
  unsigned long long device = 0;
  unsigned long long inode = 0;
  long long offset = 0;
  if (std::sscanf(text, "device %llu inode %llu offset %lld", &device, &inode, &offset) != 3 ||
      offset < 0) {
    return fail(ErrorClass::misconfigured, "position_file",
                fmt::format("{} is no position file of the relay", path_),
                "set position_file to another place; or delete it, and all is read again");
  }
  position.device = device;
  position.inode = inode;
  position.offset = offset;
  return position;
}

Result<void> PositionFile::write(const FilePosition& position) const {
  const std::string text = fmt::format("device {} inode {} offset {}\n", position.device,
                                       position.inode, position.offset);
  const std::string fresh = path_ + ".new";
  {
    const Descriptor file(
        ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!file) return failed(path_, "written");
    if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::fdatasync(file.get()) != 0) {
      return failed(path_, "written");
    }
  }
  if (std::rename(fresh.c_str(), path_.c_str()) != 0) return failed(path_, "written");
  return {};
}

}  // namespace relay::file
