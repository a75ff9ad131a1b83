#include "config/host_access.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <system_error>

namespace relay::config {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestFile = 1 << 20;
constexpr std::string_view kFile = "file:";
constexpr std::string_view kEnv = "env:";

/// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Error unreadable(std::string why) {
  return misconfigured("unreadable_file", std::move(why),
                       "Give the path of a file that the relay may read.");
}

std::string reason() {
  return std::generic_category().message(errno);
}

/// Kubernetes mounts a secret as `name -> ..data/name`, `..data -> ..2026_01_01...`.
std::string without_hidden_parents(const std::string& path) {
  fs::path out;
  for (const fs::path& part : fs::path(path)) {
    if (part.native().size() > 2 && part.native().starts_with("..")) continue;
    out /= part;
  }
  return out.native();
}

/// The pattern with links followed in the directories that it names without a wildcard.
std::string resolved_pattern(const std::string& pattern) {
  const auto wild = std::min(pattern.find_first_of("*?"), pattern.size());
  const auto slash = pattern.rfind('/', wild);
  if (slash == std::string::npos || slash == 0) return pattern;
  std::error_code error;
  const fs::path directory = fs::weakly_canonical(pattern.substr(0, slash), error);
  return error ? pattern : directory.native() + pattern.substr(slash);
}

/// Whether patterns allow the path that links lead to.
bool allows_resolved(const std::vector<std::string>& patterns, const std::string& path) {
  const std::string plain = without_hidden_parents(path);
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    const std::string resolved = resolved_pattern(pattern);
    return matches_pattern(resolved, path) || matches_pattern(resolved, plain);
  });
}

bool allows_written(const std::vector<std::string>& patterns, const std::string& path) {
  return !path.empty() &&
         std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_pattern(pattern, path); });
}

Error not_allowed() {
  return misconfigured("not_allowed", "the operator does not allow this file", {});
}

Result<std::string> read_all(int fd) {
  std::string content;
  std::array<char, 16 * 1024> part{};
  while (true) {
    const ssize_t size = ::read(fd, part.data(), part.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(unreadable(reason()));
    if (size == 0) break;
    content.append(part.data(), static_cast<std::size_t>(size));
    if (content.size() > kLargestFile) {
      return fail(unreadable("the file is larger than 1 MiB"));
    }
  }
  if (content.ends_with('\n')) content.pop_back();
  if (content.ends_with('\r')) content.pop_back();
  return content;
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern.starts_with('*')) {
    const bool any = pattern.starts_with("**");
    const std::string_view rest = pattern.substr(any ? 2 : 1);
    for (std::size_t i = 0;; ++i) {
      if (matches_pattern(rest, text.substr(i))) return true;
      if (i == text.size() || (text[i] == '/' && !any)) return false;
    }
  }
  if (text.empty()) return false;
  if (pattern[0] == '?' ? text[0] == '/' : pattern[0] != text[0]) return false;
  return matches_pattern(pattern.substr(1), text.substr(1));
}

std::string normal_path(std::string_view path) {
  if (!path.starts_with('/') || path.find('\0') != std::string_view::npos) return {};
  std::string normal = fs::path(path).lexically_normal().native();
  // POSIX gives two slashes at the beginning a meaning of their own.
  normal.erase(0, std::min(normal.find_first_not_of('/'), normal.size()));
  return "/" + normal;
}

bool allows_path(const std::vector<std::string>& patterns, std::string_view path) {
  const std::string normal = normal_path(path);
  if (!allows_written(patterns, normal)) return false;
  std::error_code error;
  // The path as given, not its normal form: a `..` behind a link leads elsewhere.
  const fs::path resolved = fs::weakly_canonical(fs::path(path), error);
  return !error && allows_resolved(patterns, resolved.native());
}

Result<void> check_patterns(const HostAccess& access) {
  for (const std::string& pattern : access.secrets) {
    if (pattern.starts_with(kEnv) || pattern.starts_with("file:/")) continue;
    return fail(misconfigured("bad_pattern",
                              fmt::format("allow_secret: '{}' is no pattern", pattern),
                              "Write it as env:NAME or file:/path; * stands for any text."));
  }
  for (const std::string& pattern : access.files) {
    if (pattern.starts_with('/')) continue;
    return fail(misconfigured("bad_pattern", fmt::format("allow_file: '{}' is no pattern", pattern),
                              "Write it as a path that begins with /; * stands for any text."));
  }
  return {};
}

std::vector<std::string> secret_files(const HostAccess& access) {
  std::vector<std::string> files;
  for (const std::string& pattern : access.secrets) {
    if (pattern.starts_with(kFile)) files.push_back(pattern.substr(kFile.size()));
  }
  return files;
}

Result<std::string> read_secret_file(std::string_view path) {
  const Descriptor file(::open(std::string(path).c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (file.get() < 0) return fail(unreadable(reason()));
  return read_all(file.get());
}

Result<std::string> read_allowed_file(const std::vector<std::string>& patterns,
                                      std::string_view path) {
  if (!allows_written(patterns, normal_path(path))) return fail(not_allowed());
  // O_PATH names the file without touching it: a pipe does not block, a device does nothing.
  const Descriptor found(::open(std::string(path).c_str(), O_PATH | O_CLOEXEC));
  if (found.get() < 0) return fail(unreadable(reason()));
  const std::string link = fmt::format("/proc/self/fd/{}", found.get());
  std::array<char, PATH_MAX> real{};
  const ssize_t size = ::readlink(link.c_str(), real.data(), real.size());
  if (size <= 0 || static_cast<std::size_t>(size) == real.size()) {
    return fail(unreadable("where it leads cannot be seen in /proc"));
  }
  const std::string resolved(real.data(), static_cast<std::size_t>(size));
  if (!allows_resolved(patterns, resolved)) return fail(not_allowed());
  struct stat status {};
  if (::fstat(found.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail(unreadable("it is no regular file"));
  }
  const Descriptor file(::open(link.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return fail(unreadable(reason()));
  return read_all(file.get());
}

}  // namespace relay::config
