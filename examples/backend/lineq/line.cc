#include "lineq/line.h"

namespace relay::lineq {

void append_line(std::string& out, std::span<const std::string_view> fields) {
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) out.push_back('\t');
    for (const char c : fields[i]) {
      if (c == '\\' || c == '\t' || c == '\n') {
        out.push_back('\\');
        out.push_back(c == '\t' ? 't' : c == '\n' ? 'n' : c);
      } else {
        out.push_back(c);
      }
    }
  }
  out.push_back('\n');
}

std::vector<std::string> split_line(std::string_view line) {
  std::vector<std::string> fields(1);
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\t') {
      fields.emplace_back();
    } else if (line[i] == '\\' && i + 1 < line.size()) {
      const char c = line[++i];
      fields.back().push_back(c == 't' ? '\t' : c == 'n' ? '\n' : c);
    } else {
      fields.back().push_back(line[i]);
    }
  }
  return fields;
}

}  // namespace relay::lineq
