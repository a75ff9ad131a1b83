#include "backends/file/rotation.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "backends/file/descriptor.h"
#include "backends/file/output.h"
#include "core/log.h"

namespace relay::file {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStampForm = "00000000T000000.000Z";

/// Whether `suffix`, what comes behind "<path>.", is one that rotated_name() makes.
bool is_stamp(std::string_view suffix) {
  if (suffix.size() != kStampForm.size()) return false;
  for (std::size_t i = 0; i < kStampForm.size(); ++i) {
    const bool digit = suffix[i] >= '0' && suffix[i] <= '9';
    if (kStampForm[i] == '0' ? !digit : suffix[i] != kStampForm[i]) return false;
  }
  return true;
}

std::vector<fs::path> rotated_files(const std::string& path) {
  const fs::path file = fs::absolute(path);
  const std::string prefix = file.filename().string() + ".";
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(file.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && is_stamp(std::string_view(name).substr(prefix.size()))) {
      found.push_back(entry.path());
    }
  }
  std::ranges::sort(found);
  return found;
}

struct GzClose {
  void operator()(gzFile file) const { gzclose(file); }
};
using Gz = std::unique_ptr<gzFile_s, GzClose>;

/// Copies `from` into the gzip stream; false: stopped or failed.
bool copy_into(const Descriptor& from, gzFile to, std::stop_token stop) {
  std::array<char, 65536> buffer;
  while (!stop.stop_requested()) {
    const ssize_t got = ::read(from.get(), buffer.data(), buffer.size());
    if (got == 0) return true;
    if (got < 0 || gzwrite(to, buffer.data(), static_cast<unsigned>(got)) != got) return false;
  }
  return false;
}

/// True: `<file>.gz` is complete and on the disk, and `file` is gone.
bool compress(const fs::path& file, std::stop_token stop) {
  const std::string target = file.string() + ".gz";
  const std::string unfinished = target + ".tmp";
  const Descriptor from(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  Descriptor to(::open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
  bool whole = false;
  if (from && to) {
    Gz stream(gzdopen(::dup(to.get()), "wb6"));
    whole = stream && copy_into(from, stream.get(), stop);
    if (stream) whole = gzclose(stream.release()) == Z_OK && whole;
    whole = whole && ::fsync(to.get()) == 0;
  }
  if (!whole || ::rename(unfinished.c_str(), target.c_str()) != 0) {
    ::unlink(unfinished.c_str());
    return false;
  }
  return ::unlink(file.c_str()) == 0;
}

}  // namespace

std::string rotated_name(const std::string& path, std::chrono::system_clock::time_point now) {
  using std::chrono::milliseconds;
  for (auto at = std::chrono::floor<milliseconds>(now);; at += milliseconds(1)) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
    const std::string name = fmt::format("{}.{:%Y%m%dT%H%M%S}.{:03}Z", path,
                                         fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)),
                                         (at - seconds).count());
    std::error_code ignored;
    if (!fs::exists(name, ignored) && !fs::exists(name + ".gz", ignored)) return name;
  }
}

void compress_rotated(const std::string& path, std::string_view pipeline, std::stop_token stop) {
  for (const fs::path& file : rotated_files(path)) {
    if (stop.stop_requested()) return;
    if (!compress(file, stop) && !stop.stop_requested()) {
      log::warn("compression_failed", pipeline, "{} stays as it is: {}", file.string(),
                std::generic_category().message(errno));
    }
  }
}

}  // namespace relay::file
