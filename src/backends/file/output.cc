#include "backends/file/output.h"

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "backends/file/file_output.h"
#include "backends/file/stream_output.h"

namespace relay::file {

Error system_error(int number, std::string_view doing, std::string_view where) {
  struct Known {
    int number;
    ErrorClass error_class;
    std::string_view code;
    std::string_view remedy;
  };
  static constexpr Known kKnown[] = {
      {ENOSPC, ErrorClass::transient, "disk_full", "make room: the relay goes on by itself"},
      {EDQUOT, ErrorClass::transient, "disk_full", "raise the quota: the relay goes on by itself"},
      {EFBIG, ErrorClass::misconfigured, "file_too_large", "set rotate_bytes, or raise the limit"},
      {ENOENT, ErrorClass::misconfigured, "no_directory", "make the directory, or correct path"},
      {ENOTDIR, ErrorClass::misconfigured, "no_directory", "correct path"},
      {EISDIR, ErrorClass::misconfigured, "is_directory", "name a file in path, not a directory"},
      {EACCES, ErrorClass::misconfigured, "no_permission",
       "let the relay's user write there, or correct path"},
      {EPERM, ErrorClass::misconfigured, "no_permission",
       "let the relay's user write there, or correct path"},
      {EROFS, ErrorClass::misconfigured, "read_only", "correct path, or mount it writable"},
      {EBADF, ErrorClass::misconfigured, "closed",
       "start the relay with its output open, or set path"},
  };
  const auto told = fmt::format("{} {}: {}", doing, where, std::generic_category().message(number));
  for (const Known& known : kKnown) {
    if (known.number == number) {
      return {known.error_class, std::string(known.code), told, std::string(known.remedy), {}};
    }
  }
  return {ErrorClass::transient, "io_error", told, "", {}};
}

Result<std::unique_ptr<Output>> open_output(const Options& options, const Lease& lease,
                                            std::stop_token stop) {
  struct stat status {};
  if (options.path.empty()) {
    const bool regular = ::fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode);
    return regular ? open_redirected(STDOUT_FILENO, options)
                   : open_stream(STDOUT_FILENO, "standard output", lease);
  }
  const bool stream = ::stat(options.path.c_str(), &status) == 0 &&
                      (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode));
  return stream ? open_stream(options.path, lease) : open_file(options, stop);
}

}  // namespace relay::file
