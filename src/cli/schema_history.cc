#include "cli/schema_history.h"

#include <map>

#include "core/digest.h"

namespace relay::cli {

std::string checksum(std::string_view text) {
  return hex(bytes_of(sha256(text)));
}

Result<std::vector<std::string>> differing_files(const std::vector<DatabaseFile>& files,
                                                 postgres::Connection& connection,
                                                 Deadline deadline) {
  const auto rows = connection.query("select file, checksum from pgtrickle.relay_schema_history",
                                     {}, deadline, {});
  if (!rows) return fail(rows.error());
  std::map<std::string, std::string, std::less<>> installed;
  for (int row = 0; row < rows->size(); ++row) {
    installed.emplace(rows->text(row, 0), rows->text(row, 1));
  }
  std::vector<std::string> differing;
  for (const DatabaseFile& file : files) {
    const auto found = installed.find(file.name);
    if (found == installed.end() || found->second != checksum(file.text)) {
      differing.emplace_back(file.name);
    }
  }
  return differing;
}

}  // namespace relay::cli
