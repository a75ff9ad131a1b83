#include "cli/config_file.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace relay::cli {

Result<config::FileConfig> load_config_file(const config::Catalogue& catalogue,
                                            const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file) {
    return fail(ErrorClass::misconfigured, "config_file",
                fmt::format("{} cannot be read: {}", path, std::strerror(errno)),
                "check the path given with --config and that this user may read it");
  }
  return config::parse_config_file(catalogue, text.str(), path);
}

}  // namespace relay::cli
