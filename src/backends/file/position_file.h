#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"

namespace relay::file {

/// How far a file was settled: which file, whatever its name is now, and where in it.
struct FilePosition {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t offset = 0;

  friend bool operator==(const FilePosition&, const FilePosition&) = default;
};

/// A small file that keeps a position over restarts. Written whole or not at all.
class PositionFile {
 public:
  explicit PositionFile(std::string path) : path_(std::move(path)) {}

  /// Nothing where there is none yet. Misconfigured: it cannot be read, or is something else.
  Result<std::optional<FilePosition>> read() const;
  Result<void> write(const FilePosition& position) const;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

}  // namespace relay::file
