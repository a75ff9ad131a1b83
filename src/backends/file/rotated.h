#pragma once

#include <string>
#include <vector>

#include "backends/file/position_file.h"
#include "core/error.h"

namespace relay::file {

/// A file as it is found.
struct FoundFile {
  std::string path;
  FilePosition start;  ///< which file it is, and where to begin
};

/// The files to read, in order, to go on from `position`: the one it is in, under whatever name
/// rotation gave it (the path's, and behind it a number or a time), those that were rotated after
/// it, and the one at `path` last. `lost` is set where the one it is in is not there any more:
/// reading then begins with the one at `path`. Empty: there is none at `path`.
struct WayOn {
  std::vector<FoundFile> files;
  bool lost = false;
};
Result<WayOn> way_on(const std::string& path, const FilePosition& position);

}  // namespace relay::file
