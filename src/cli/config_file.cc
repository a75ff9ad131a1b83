#include "cli/config_file.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

namespace relay::cli {

Result<std::string> read_config_file(const std::string& path, std::string remedy) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (file) return text.str();
  return fail(misconfigured("config_file",
                            fmt::format("{} cannot be read: {}", path, std::strerror(errno)),
                            std::move(remedy)));
}

Result<config::FileConfig> load_config_file(const config::Catalogue& catalogue,
                                            const std::string& path) {
  const auto text =
      read_config_file(path, "check the path given with --config and that this user may read it");
  if (!text) return fail(text.error());
  return config::parse_config_file(catalogue, *text, path);
}

}  // namespace relay::cli
