#include "connector/field_mapping.h"

#include <fmt/core.h>

#include <utility>

#include "core/arena.h"
#include "core/text.h"
#include "envelope/json_reader.h"

namespace relay {

namespace {

using Part = MappingExpression::Part;

constexpr auto kMappingFields = config::fields_of(kMappingOptions);

tl::unexpected<Error> bad_expression(std::string_view option, std::string_view what) {
  return fail(ErrorClass::misconfigured, "bad_mapping", fmt::format("{}: {}", option, what),
              "write header:NAME, json:/pointer, key, subject, or template:... with any of these "
              "in braces");
}

// RFC 6901: parts behind slashes, ~1 is a slash and ~0 a tilde.
bool parse_pointer(std::string_view text, std::vector<std::string>& path) {
  if (!text.starts_with('/')) return text.empty();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '/') {
      path.emplace_back();
    } else if (text[i] == '~') {
      if (++i == text.size() || (text[i] != '0' && text[i] != '1')) return false;
      path.back() += text[i] == '0' ? '~' : '/';
    } else {
      path.back() += text[i];
    }
  }
  return true;
}

Result<Part> parse_part(std::string_view text, std::string_view option) {
  if (text == "key") return Part{Part::Kind::key, {}, {}};
  if (text == "subject") return Part{Part::Kind::subject, {}, {}};
  if (text.starts_with("header:")) {
    const std::string_view name = trimmed(text.substr(7));
    if (name.empty()) return bad_expression(option, "header: without a name behind it");
    return Part{Part::Kind::header, std::string(name), {}};
  }
  if (text.starts_with("json:")) {
    Part part{Part::Kind::json, {}, {}};
    if (!parse_pointer(text.substr(5), part.path)) {
      return bad_expression(option,
                            fmt::format("'{}' is no JSON pointer; one begins with a slash", text));
    }
    return part;
  }
  return bad_expression(option, fmt::format("'{}' is not known", text));
}

Result<std::vector<Part>> parse_template(std::string_view text, std::string_view option) {
  std::vector<Part> parts;
  std::string literal;
  const auto end_literal = [&] {
    if (!literal.empty()) parts.push_back({Part::Kind::text, std::exchange(literal, {}), {}});
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view escaped = "{}\\";
    if (text[i] == '\\' && i + 1 < text.size() && escaped.find(text[i + 1]) != escaped.npos) {
      literal += text[++i];
    } else if (text[i] == '{') {
      const std::size_t end = text.find('}', i);
      if (end == text.npos) return bad_expression(option, "a brace is opened and not closed");
      auto part = parse_part(trimmed(text.substr(i + 1, end - i - 1)), option);
      if (!part) return fail(part.error());
      end_literal();
      parts.push_back(std::move(*part));
      i = end;
    } else if (text[i] == '}') {
      return bad_expression(option, "a brace is closed that was not opened");
    } else {
      literal += text[i];
    }
  }
  end_literal();
  if (parts.empty()) return bad_expression(option, "the template is empty");
  return parts;
}

std::optional<std::string> unless_empty(std::string_view text) {
  if (text.empty()) return std::nullopt;
  return std::string(text);
}

}  // namespace

Result<MappingExpression> MappingExpression::parse(const std::string& text,
                                                   std::string_view option) {
  const std::string_view plain = trimmed(text);
  if (plain.starts_with("template:")) {
    auto parts = parse_template(plain.substr(9), option);
    if (!parts) return fail(parts.error());
    return MappingExpression{std::move(*parts)};
  }
  auto part = parse_part(plain, option);
  if (!part) return fail(part.error());
  return MappingExpression{{std::move(*part)}};
}

// Reads payloads, which come without the padding that the reader asks for.
class FieldMapping::Json {
 public:
  std::optional<std::string> find(std::string_view payload, std::span<const std::string> path) {
    buffer_.assign(trimmed(payload));
    const std::size_t size = buffer_.size();
    buffer_.resize(size + Arena::kPadding, ' ');
    const std::string_view raw = reader_.find(std::string_view(buffer_).substr(0, size), path);
    std::optional<std::string> found = text_of(raw);
    if (buffer_.capacity() > kKept) std::string().swap(buffer_);
    return found;
  }

 private:
  static constexpr std::size_t kKept = 1u << 20;

  std::optional<std::string> text_of(std::string_view raw) {
    const envelope::JsonKind kind = envelope::kind_of(raw);
    if (kind == envelope::JsonKind::null) return std::nullopt;
    if (kind != envelope::JsonKind::text) return std::string(raw);
    std::string text;
    if (!reader_.append_text(raw, text)) return std::nullopt;
    return unless_empty(text);
  }

  envelope::JsonReader reader_;
  std::string buffer_;
};

FieldMapping::FieldMapping() : json_(std::make_unique<Json>()) {}
FieldMapping::~FieldMapping() = default;
FieldMapping::FieldMapping(FieldMapping&&) noexcept = default;
FieldMapping& FieldMapping::operator=(FieldMapping&&) noexcept = default;

config::FieldTable FieldMapping::fields() {
  return kMappingFields;
}

Result<FieldMapping> FieldMapping::make(const config::Values& values) {
  auto options = config::filled<MappingOptions>(kMappingOptions, values);
  if (!options) return fail(options.error());
  FieldMapping mapping;
  mapping.options_ = std::move(*options);
  return mapping;
}

std::optional<std::string> FieldMapping::value(const Part& part,
                                               const MappedMessage& message) const {
  switch (part.kind) {
    case Part::Kind::text:
      return part.text;
    case Part::Kind::key:
      return unless_empty(message.key);
    case Part::Kind::subject:
      return unless_empty(message.subject);
    case Part::Kind::header: {
      auto found = message.header ? message.header(part.text) : std::nullopt;
      return found && !found->empty() ? found : std::nullopt;
    }
    case Part::Kind::json:
      return json_->find(message.payload, part.path);
  }
  return std::nullopt;
}

std::optional<std::string> FieldMapping::value(const MappingExpression& expression,
                                               const MappedMessage& message) const {
  if (expression.parts.empty()) return std::nullopt;
  std::string text;
  for (const Part& part : expression.parts) {
    const auto piece = value(part, message);
    if (!piece) return std::nullopt;
    text += *piece;
  }
  return text;
}

std::optional<std::string> FieldMapping::id(const MappedMessage& message) const {
  return value(options_.id, message);
}
std::optional<std::string> FieldMapping::event_type(const MappedMessage& message) const {
  return value(options_.event_type, message);
}
std::optional<std::string> FieldMapping::aggregate_id(const MappedMessage& message) const {
  return value(options_.aggregate_id, message);
}
std::optional<std::string> FieldMapping::trace_id(const MappedMessage& message) const {
  return value(options_.trace_id, message);
}

}  // namespace relay
