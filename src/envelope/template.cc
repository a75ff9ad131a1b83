#include "envelope/template.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace relay::envelope {
namespace {

constexpr std::array<std::string_view, kVariables> kNames = {
    "stream_table", "op", "outbox_id", "refresh_id", "event_type", "key", "schema"};
constexpr std::string_view kNull = "_null";

std::uint8_t bit(Variable variable) {
  return static_cast<std::uint8_t>(1u << static_cast<unsigned>(variable));
}

std::string known_variables() {
  std::string list;
  for (const std::string_view name : kNames) list += fmt::format("{{{}}}, ", name);
  return list + "and {{ column }} for a column of the row";
}

// Counts characters, not bytes, as editors do.
std::size_t character(std::string_view text, std::size_t byte) {
  const auto begins_one = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  const auto end = text.begin() + static_cast<std::ptrdiff_t>(byte);
  return static_cast<std::size_t>(std::count_if(text.begin(), end, begins_one)) + 1;
}

}  // namespace

class Template::Compiler {
 public:
  Compiler(std::string_view text, std::string_view option) : text_(text), option_(option) {}

  Result<Template> run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\\' && at_ + 1 < text_.size() && is_escaped(text_[at_ + 1])) {
        literal_.push_back(text_[at_ + 1]);
        at_ += 2;
      } else if (c == '{') {
        const bool column = text_.substr(at_).starts_with("{{");
        if (auto done = column ? read_column() : read_variable(); !done) return fail(done.error());
      } else if (c == '}') {
        return problem(at_, "a brace is closed that was not opened",
                       R"(write \} for a brace that stands for itself)");
      } else {
        literal_.push_back(c);
        ++at_;
      }
    }
    end_literal();
    return std::move(result_);
  }

 private:
  static bool is_escaped(char c) { return c == '{' || c == '}' || c == '\\'; }

  tl::unexpected<Error> problem(std::size_t at, std::string_view what, std::string remedy) const {
    return fail(ErrorClass::misconfigured, "template",
                fmt::format("{}, character {}: {}", option_, character(text_, at), what),
                std::move(remedy));
  }

  void end_literal() {
    if (literal_.empty()) return;
    result_.parts_.push_back({Part::Kind::text, std::exchange(literal_, {}), {}, {}});
  }

  Result<void> read_variable() {
    const std::size_t end = text_.find_first_of("{}", at_ + 1);
    if (end == std::string_view::npos || text_[end] != '}') {
      return problem(at_, "a brace is opened and not closed",
                     R"(write \{ for a brace that stands for itself)");
    }
    const std::string_view name = trimmed(text_.substr(at_ + 1, end - at_ - 1), " ");
    const auto known = std::find(kNames.begin(), kNames.end(), name);
    if (known == kNames.end()) {
      const std::string_view near = nearest(name, kNames);
      std::string hint = near.empty() ? "" : fmt::format("; did you mean {{{}}}?", near);
      return problem(at_, fmt::format("unknown variable {{{}}}{}", name, hint),
                     "known are " + known_variables());
    }
    end_literal();
    const auto variable = static_cast<Variable>(known - kNames.begin());
    result_.variables_ |= bit(variable);
    result_.parts_.push_back({Part::Kind::variable, {}, variable, {}});
    at_ = end + 1;
    return {};
  }

  Result<void> read_column() {
    const std::size_t end = find_column_end();
    if (end == std::string_view::npos) {
      return problem(at_, "a column is opened with {{ and not closed with }}",
                     R"(write \{ for a brace that stands for itself)");
    }
    Part part{Part::Kind::column, {}, {}, {}};
    const std::string_view name = trimmed(text_.substr(at_ + 2, end - at_ - 2), " ");
    if (!ColumnPath::parse(name, part.column)) {
      return problem(at_, fmt::format("{{{{{}}}}} names no column", name),
                     "write {{ column }}, or {{ column.member }} for a value inside JSON");
    }
    end_literal();
    result_.has_columns_ = true;
    result_.parts_.push_back(std::move(part));
    at_ = end + 2;
    return {};
  }

  // The closing braces, where a quoted name may hold some.
  std::size_t find_column_end() const {
    bool quoted = false;
    for (std::size_t i = at_ + 2; i < text_.size(); ++i) {
      if (text_[i] == '"') quoted = !quoted;
      if (!quoted && text_[i] == '{') break;
      if (!quoted && text_.substr(i).starts_with("}}")) return i;
    }
    return std::string_view::npos;
  }

  std::string_view text_;
  std::string_view option_;
  std::size_t at_ = 0;
  std::string literal_;
  Template result_;
};

Result<Template> Template::compile(std::string_view text, std::string_view option) {
  return Compiler(text, option).run();
}

bool Template::uses(Variable variable) const {
  return (variables_ & bit(variable)) != 0;
}

bool Template::varies() const {
  return has_columns_ || (variables_ & ~bit(Variable::stream_table) & ~bit(Variable::schema)) != 0;
}

const ColumnPath* Template::render(std::string& out, const Variables& variables, const RowView& row,
                                   JsonReader& reader, Escape escape) const {
  for (const Part& part : parts_) {
    if (part.kind == Part::Kind::text) {
      out.append(part.text);
    } else if (part.kind == Part::Kind::column) {
      const std::string_view raw = find_value(row, part.column, reader);
      if (raw.empty()) return &part.column;
      append_value_text(out, raw, reader, escape);
    } else if (const auto& value = variables[part.variable]; !value) {
      out.append(kNull);
    } else if (escape != nullptr) {
      escape(out, *value);
    } else {
      out.append(*value);
    }
  }
  return nullptr;
}

void append_value_text(std::string& out, std::string_view raw, JsonReader& reader,
                       Template::Escape escape) {
  const JsonKind kind = kind_of(raw);
  if (kind == JsonKind::null) {
    out.append(kNull);
  } else if (kind != JsonKind::text) {
    escape != nullptr ? escape(out, raw) : void(out.append(raw));
  } else if (escape == nullptr) {
    if (!reader.append_text(raw, out)) out.append(raw);
  } else {
    std::string text;
    if (!reader.append_text(raw, text)) text = raw;
    escape(out, text);
  }
}

}  // namespace relay::envelope
