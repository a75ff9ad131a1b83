#include "backends/file/rotated.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

namespace relay::file {

namespace {

struct Candidate {
  FoundFile file;
  std::pair<std::int64_t, std::int64_t> changed;  // when it was last written
  bool is_path = false;
};

bool look_at(const std::string& path, Candidate& found) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  found.file = {path, {status.st_dev, status.st_ino, 0}};
  found.changed = {status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
  return true;
}

/// What rotation puts behind a name: a number or a time. Packed files and others are none.
bool is_rotated(std::string_view other, std::string_view name) {
  if (!other.starts_with(name)) return false;
  const std::string_view behind = other.substr(name.size());
  return !behind.empty() && (behind[0] == '.' || behind[0] == '-' || behind[0] == '_') &&
         behind.find_first_not_of("0123456789.-_:TZ") == std::string_view::npos;
}

bool same_file(const FilePosition& a, const FilePosition& b) {
  return a.device == b.device && a.inode == b.inode;
}

}  // namespace

Result<WayOn> way_on(const std::string& path, const FilePosition& position) {
  namespace fs = std::filesystem;
  const fs::path wanted(path);
  const std::string name = wanted.filename();
  std::vector<Candidate> candidates;
  std::error_code error;
  const fs::path directory = wanted.has_parent_path() ? wanted.parent_path() : fs::path(".");
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string other = entry->path().filename();
    Candidate candidate;
    if (other != name && !is_rotated(other, name)) continue;
    if (!look_at(entry->path(), candidate)) continue;
    candidate.is_path = other == name;
    candidates.push_back(std::move(candidate));
  }
  if (error) {
    return fail(ErrorClass::transient, "no_directory",
                fmt::format("{}: {}", directory.string(), error.message()),
                "correct path, or let the relay's user read the directory");
  }
  std::ranges::sort(candidates, [](const Candidate& a, const Candidate& b) {
    return std::tie(a.is_path, a.changed) < std::tie(b.is_path, b.changed);
  });
  auto from = std::ranges::find_if(candidates, [&](const Candidate& candidate) {
    return same_file(candidate.file.start, position);
  });
  WayOn way;
  way.lost = from == candidates.end();
  if (way.lost) from = std::ranges::find_if(candidates, &Candidate::is_path);
  for (; from != candidates.end(); ++from) way.files.push_back(std::move(from->file));
  if (!way.lost) way.files.front().start.offset = position.offset;
  return way;
}

}  // namespace relay::file
