#include "envelope/column.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace relay::envelope {
namespace {

bool read_quoted(std::string_view text, std::size_t& i, std::string& name) {
  for (++i; i < text.size(); ++i) {
    if (text[i] != '"') {
      name.push_back(text[i]);
    } else if (i + 1 < text.size() && text[i + 1] == '"') {
      name.push_back('"');
      ++i;
    } else {
      ++i;
      return true;
    }
  }
  return false;
}

void append_name(std::string& out, std::string_view name) {
  if (std::all_of(name.begin(), name.end(), is_plain_byte)) {
    out.append(name);
    return;
  }
  out.push_back('"');
  for (const char c : name) out.append(c == '"' ? 2 : 1, c);
  out.push_back('"');
}

}  // namespace

bool is_plain_byte(char c) {
  return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool ColumnPath::parse(std::string_view text, ColumnPath& path) {
  std::vector<std::string> names;
  std::size_t i = 0;
  for (;;) {
    std::string name;
    if (i < text.size() && text[i] == '"') {
      if (!read_quoted(text, i, name)) return false;
    } else {
      const std::size_t end = std::min(text.find('.', i), text.size());
      name = text.substr(i, end - i);
      i = end;
    }
    if (name.empty()) return false;
    names.push_back(std::move(name));
    if (i == text.size()) break;
    if (text[i] != '.') return false;
    ++i;
  }
  path.column = std::move(names.front());
  path.inside.assign(std::make_move_iterator(names.begin() + 1),
                     std::make_move_iterator(names.end()));
  return true;
}

std::string ColumnPath::to_string() const {
  std::string out;
  append_name(out, column);
  for (const std::string& step : inside) {
    out.push_back('.');
    append_name(out, step);
  }
  return out;
}

std::string_view find_value(const RowView& row, const ColumnPath& path, JsonReader& reader) {
  if (row.rows == nullptr) return "null";
  const std::string_view* value = row.rows->find(row.index, path.column);
  if (value == nullptr) return {};
  if (path.inside.empty()) return *value;
  const std::string_view inside = reader.find(*value, path.inside);
  return inside.empty() ? "null" : inside;
}

}  // namespace relay::envelope
