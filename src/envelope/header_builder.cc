#include "envelope/header_builder.h"

#include <algorithm>
#include <cstddef>

#include "core/text.h"

namespace relay::envelope {

bool HeaderBuilder::read(std::string_view json, const HeaderRules& rules, JsonReader& reader,
                         Output& output) {
  of_record_.clear();
  if (json.empty() || json == "{}" || json == "null") return true;
  row_.clear();
  if (!reader.slice_object(json, row_)) return false;
  for (const Member& member : row_.members(0)) {
    const JsonKind kind = kind_of(member.value);
    if (kind == JsonKind::null || is_reserved_header(member.name) || rules.drops(member.name)) {
      continue;
    }
    text_.clear();
    if (kind != JsonKind::text) {
      text_ = member.value;
    } else if (!reader.append_text(member.value, text_)) {
      return false;
    }
    of_record_.push_back({output.keep(member.name), output.keep(text_)});
  }
  return true;
}

std::span<const Header> HeaderBuilder::build(const Plan& plan,
                                             std::span<const std::string_view> rendered,
                                             Output& output) {
  if (rendered.empty() && of_record_.empty()) return {};
  headers_.clear();
  for (std::size_t i = 0; i < rendered.size(); ++i) {
    headers_.push_back({output.keep(plan.headers[i].name), output.keep(rendered[i])});
  }
  for (const Header& header : of_record_) {
    const bool taken = std::any_of(plan.headers.begin(), plan.headers.end(), [&](const auto& set) {
      return equal_ignoring_case(set.name, header.name);
    });
    if (!taken) headers_.push_back(header);
  }
  return output.keep(headers_);
}

}  // namespace relay::envelope
