// What `check` sees of sinks and sources: no file is opened, cut off or made.

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "backends/file/file_source.h"
#include "backends/file/output.h"
#include "backends/file/sink.h"
#include "backends/file/stdin_source.h"
#include "core/text.h"

namespace relay::file {

namespace {

std::string directory_of(const std::string& path) {
  return std::filesystem::absolute(path).parent_path().string();
}

/// The error of opening a file to write, which may be absent; 0: it could be opened.
int trouble_writing(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return EISDIR;
    return ::access(path.c_str(), S_ISREG(status.st_mode) ? R_OK | W_OK : W_OK) == 0 ? 0 : errno;
  }
  if (errno != ENOENT) return errno;
  return ::access(directory_of(path).c_str(), W_OK | X_OK) == 0 ? 0 : errno;
}

/// The same of files that are renamed, or replaced by others.
int trouble_replacing(const std::string& path) {
  if (const int trouble = trouble_writing(path)) return trouble;
  return ::access(directory_of(path).c_str(), W_OK | X_OK) == 0 ? 0 : errno;
}

Error cannot_write(int trouble, const std::string& path) {
  Error error = system_error(trouble, "writing to", path);
  if (trouble == ENOENT) error.remedy = fmt::format("mkdir -p {}", shell_word(directory_of(path)));
  return error;
}

/// By which a file is known, whatever way leads to it. Empty: it is a pipe or a device.
std::string identity(const std::string& path) {
  std::error_code ignored;
  const auto found = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(found) && !std::filesystem::is_regular_file(found)) return {};
  const auto whole = std::filesystem::weakly_canonical(std::filesystem::absolute(path), ignored);
  return ignored ? path : whole.string();
}

}  // namespace

Inspection FileSink::inspect(const std::optional<std::string>&, std::stop_token) {
  Inspection found;
  if (options_.path.empty()) return found;
  const bool rotates = options_.rotate_bytes > 0 || options_.rotate_interval.count() > 0;
  const int trouble = rotates ? trouble_replacing(options_.path) : trouble_writing(options_.path);
  if (trouble != 0) found.problems.push_back(cannot_write(trouble, options_.path));
  return found;
}

std::vector<Claim> FileSink::claims() const {
  const std::string file = options_.path.empty() ? std::string() : identity(options_.path);
  if (file.empty()) return {};
  return {{.what = fmt::format("the file {} (writing)", file),
           .servers = {},
           .effect = "only one of them can write to it",
           .remedy = "give each pipeline a file of its own"}};
}

Inspection FileSource::inspect(std::stop_token) {
  Inspection found = Inspection::of([&]() -> Result<void> {
    const auto known = position_file_.read();
    return known ? Result<void>() : fail(known.error());
  }());
  if (const int trouble = trouble_replacing(options_.position_file);
      trouble != 0 && found.problems.empty()) {
    Error error = cannot_write(trouble, options_.position_file);
    error.remedy = "let the relay's user write there, or set position_file to another place";
    found.problems.push_back(std::move(error));
  }
  if (::access(options_.path.c_str(), R_OK) == 0) return found;
  const int trouble = errno;
  if (trouble == ENOENT && options_.follow) {
    found.notes.push_back(fmt::format("there is no file {} yet: it is waited for", options_.path));
  } else {
    Error error = system_error(trouble, "reading", options_.path);
    error.remedy = "correct path, or let the relay's user read the file";
    found.problems.push_back(std::move(error));
  }
  return found;
}

std::vector<Claim> FileSource::claims() const {
  return {{.what = fmt::format("the position file {}", identity(options_.position_file)),
           .servers = {},
           .effect = "each of them skips what the other one has read",
           .remedy = "give each pipeline a position_file of its own"}};
}

std::vector<Claim> StdinSource::claims() const {
  return {{.what = "standard input",
           .servers = {},
           .effect = "only one of them can read it",
           .remedy = "let one pipeline read it"}};
}

}  // namespace relay::file
