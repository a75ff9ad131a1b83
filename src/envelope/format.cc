#include "envelope/format.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/text.h"

namespace relay::envelope {
namespace {

constexpr std::array kFormats = {&kNativeFormat, &kDebeziumFormat, &kCloudEventsFormat};
constexpr std::array kHeaderFormats = {&kCloudEventsBinaryFormat};

const Format* find(std::span<const Format* const> formats, std::string_view name) {
  const auto found = std::find_if(formats.begin(), formats.end(),
                                  [&](const Format* format) { return format->name == name; });
  return found == formats.end() ? nullptr : *found;
}

bool contains(std::span<const std::string> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

const Format* find_format(std::string_view name, bool headers_only) {
  const Format* format = headers_only ? find(kHeaderFormats, name) : nullptr;
  return format != nullptr ? format : find(kFormats, name);
}

std::string format_names() {
  std::vector<std::string_view> names;
  for (const Format* format : kFormats) names.push_back(format->name);
  return join_names(names);
}

void RowPrinter::append(std::string& out, std::uint32_t row) const {
  if (columns.empty()) {
    out.append(rows->text(row));
    return;
  }
  out.push_back('{');
  bool first = true;
  for (const Member& member : rows->members(row)) {
    if (!contains(columns, member.name) && !contains(key_columns, member.name)) continue;
    if (!first) out.append(", ");
    out.append(member.text);
    first = false;
  }
  out.push_back('}');
}

void RowPrinter::append_key(std::string& out, std::uint32_t row) const {
  const std::size_t begin = out.size();
  out.push_back('{');
  for (const std::string& column : key_columns) {
    const auto members = rows->members(row);
    const auto member = std::find_if(members.begin(), members.end(),
                                     [&](const Member& m) { return m.name == column; });
    if (member == members.end()) {
      out.resize(begin);
      out.append("null");
      return;
    }
    if (out.size() > begin + 1) out.append(", ");
    out.append(member->text);
  }
  if (key_columns.empty()) {
    out.resize(begin);
    out.append("null");
  } else {
    out.push_back('}');
  }
}

void RowList::append(std::string& out) const {
  if (printer == nullptr) {
    out.append(array.empty() ? "[]" : array);
    return;
  }
  out.push_back('[');
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i > 0) out.append(", ");
    printer->append(out, rows[i]);
  }
  out.push_back(']');
}

}  // namespace relay::envelope
