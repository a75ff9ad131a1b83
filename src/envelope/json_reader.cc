#include "envelope/json_reader.h"

#include <simdjson.h>

#include <charconv>
#include <system_error>

#include "core/arena.h"

namespace relay::envelope {

namespace ondemand = simdjson::ondemand;

namespace {

static_assert(Arena::kPadding >= simdjson::SIMDJSON_PADDING);

// A parser keeps about six bytes for each byte of the largest text that it has seen. After a text
// larger than this, its memory is freed.
constexpr std::size_t kKeptCapacity = 2u << 20;

simdjson::padded_string_view padded(std::string_view json) {
  const std::size_t readable = json.size() + simdjson::SIMDJSON_PADDING;
  return simdjson::padded_string_view(json.data(), json.size(), readable);
}

std::string_view trimmed(std::string_view raw) {
  while (!raw.empty() && static_cast<unsigned char>(raw.back()) <= ' ') raw.remove_suffix(1);
  return raw;
}

simdjson::error_code raw_value(ondemand::value value, std::string_view& raw) {
  ondemand::json_type type{};
  if (const auto error = value.type().get(type)) return error;
  if (type == ondemand::json_type::object) {
    ondemand::object object;
    if (const auto error = value.get_object().get(object)) return error;
    if (const auto error = object.raw_json().get(raw)) return error;
  } else if (type == ondemand::json_type::array) {
    ondemand::array array;
    if (const auto error = value.get_array().get(array)) return error;
    if (const auto error = array.raw_json().get(raw)) return error;
  } else {
    raw = value.raw_json_token();
  }
  raw = trimmed(raw);
  return raw.empty() ? simdjson::TAPE_ERROR : simdjson::SUCCESS;
}

bool at_end(ondemand::document& document) {
  return document.current_location().error() == simdjson::OUT_OF_BOUNDS;
}

// A name from its first byte to the quote that ends it. The text is known to hold that quote:
// the parser has found the string's end.
std::string_view raw_name(const char* begin, const char* end, bool& escaped) {
  const char* p = begin;
  while (p < end && *p != '"') {
    if (*p == '\\') {
      escaped = true;
      if (++p == end) break;
    }
    ++p;
  }
  return {begin, static_cast<std::size_t>(p - begin)};
}

}  // namespace

JsonKind kind_of(std::string_view raw) {
  switch (raw.empty() ? '\0' : raw.front()) {
    case '"':
      return JsonKind::text;
    case '{':
    case '[':
      return JsonKind::structure;
    case 't':
    case 'f':
      return JsonKind::boolean;
    case 'n':
    case '\0':
      return JsonKind::null;
    default:
      return JsonKind::number;
  }
}

void Rows::clear() {
  rows_.clear();
  members_.clear();
  decoded_names_.clear();
}

const std::string_view* Rows::find(std::size_t row, std::string_view column) const {
  for (const Member& member : members(row)) {
    if (member.name == column) return &member.value;
  }
  return nullptr;
}

struct JsonReader::Impl {
  ondemand::parser parser;
  ondemand::parser text_parser;  // for names and texts, while `parser` reads a row
  std::unique_ptr<simdjson::dom::parser> checker;

  bool append_text(std::string_view raw, std::string& out) {
    ondemand::document document;
    std::string_view text;
    if (text_parser.iterate(padded(raw)).get(document)) return false;
    if (document.get_string().get(text)) return false;
    out.append(text);
    return true;
  }

  bool append_row(ondemand::object object, const char* begin, const char* end, Rows& rows) {
    Rows::Row row{.text = {}, .first_member = rows.members_.size(), .member_count = 0};
    const char* row_end = begin + 1;  // behind the opening brace
    for (auto item : object) {
      ondemand::field field;
      if (std::move(item).get(field)) return false;
      bool escaped = false;
      const char* name_begin = field.key().raw();
      std::string_view name = raw_name(name_begin, end, escaped);
      std::string_view value;
      if (raw_value(field.value(), value)) return false;
      row_end = value.data() + value.size();
      if (escaped) {
        // Quotes included: they stand around it in the text.
        std::string& decoded = rows.decoded_names_.emplace_back();
        if (!append_text({name.data() - 1, name.size() + 2}, decoded)) return false;
        name = decoded;
      }
      const auto size = static_cast<std::size_t>(row_end - (name_begin - 1));
      rows.members_.push_back({name, {name_begin - 1, size}, value});
    }
    while (row_end < end && *row_end != '}') ++row_end;
    if (row_end == end) return false;
    row.text = {begin, static_cast<std::size_t>(row_end + 1 - begin)};
    row.member_count = rows.members_.size() - row.first_member;
    rows.rows_.push_back(row);
    return true;
  }

  bool append_rows(std::string_view json, Rows& rows) {
    ondemand::document document;
    ondemand::array array;
    if (parser.iterate(padded(json)).get(document)) return false;
    if (document.get_array().get(array)) return false;
    for (auto item : array) {
      ondemand::value value;
      ondemand::object object;
      if (std::move(item).get(value)) return false;
      const char* begin = value.raw_json_token().data();
      if (value.get_object().get(object)) return false;
      if (!append_row(object, begin, json.data() + json.size(), rows)) return false;
    }
    return at_end(document);
  }

  bool append_object(std::string_view json, Rows& rows) {
    ondemand::document document;
    ondemand::object object;
    if (parser.iterate(padded(json)).get(document)) return false;
    if (document.get_object().get(object)) return false;
    const char* begin = json.data() + json.find('{');
    return append_row(object, begin, json.data() + json.size(), rows) && at_end(document);
  }

  std::string_view member(std::string_view json, std::string_view name) {
    ondemand::document document;
    ondemand::object object;
    if (parser.iterate(padded(json)).get(document)) return {};
    if (document.get_object().get(object)) return {};
    for (auto item : object) {
      ondemand::field field;
      if (std::move(item).get(field)) return {};
      bool escaped = false;
      std::string_view found = raw_name(field.key().raw(), json.data() + json.size(), escaped);
      std::string decoded;
      if (escaped) {
        if (!append_text({found.data() - 1, found.size() + 2}, decoded)) return {};
        found = decoded;
      }
      if (found != name) continue;
      std::string_view raw;
      return raw_value(field.value(), raw) ? std::string_view() : raw;
    }
    return {};
  }

  std::string_view element(std::string_view json, std::string_view number) {
    std::size_t index = 0;
    const char* number_end = number.data() + number.size();
    const auto [end, error] = std::from_chars(number.data(), number_end, index);
    if (error != std::errc{} || end != number_end) return {};
    ondemand::document document;
    ondemand::array array;
    ondemand::value value;
    std::string_view raw;
    if (parser.iterate(padded(json)).get(document)) return {};
    if (document.get_array().get(array)) return {};
    if (array.at(index).get(value) || raw_value(value, raw)) return {};
    return raw;
  }

  void give_back() {
    if (parser.capacity() > kKeptCapacity) parser = ondemand::parser();
    if (text_parser.capacity() > kKeptCapacity) text_parser = ondemand::parser();
  }
};

JsonReader::JsonReader() : impl_(std::make_unique<Impl>()) {}
JsonReader::~JsonReader() = default;

bool JsonReader::slice_array(std::string_view json, Rows& rows) {
  if (json.empty() || json == "[]") return true;
  const std::size_t rows_before = rows.rows_.size();
  const std::size_t members_before = rows.members_.size();
  const bool good = impl_->append_rows(json, rows);
  if (!good) {
    rows.rows_.resize(rows_before);
    rows.members_.resize(members_before);
  }
  impl_->give_back();
  return good;
}

bool JsonReader::slice_object(std::string_view json, Rows& rows) {
  const std::size_t members_before = rows.members_.size();
  const std::size_t rows_before = rows.rows_.size();
  const bool good = !json.empty() && impl_->append_object(json, rows);
  if (!good) {
    rows.rows_.resize(rows_before);
    rows.members_.resize(members_before);
  }
  impl_->give_back();
  return good;
}

bool JsonReader::append_text(std::string_view raw_string, std::string& out) {
  if (raw_string.size() < 2 || raw_string.front() != '"') return false;
  const std::string_view inner = raw_string.substr(1, raw_string.size() - 2);
  if (inner.find('\\') == std::string_view::npos) {
    out.append(inner);
    return true;
  }
  const bool good = impl_->append_text(raw_string, out);
  impl_->give_back();
  return good;
}

std::string_view JsonReader::find(std::string_view json, std::span<const std::string> path) {
  for (const std::string& step : path) {
    json = json.starts_with('{')   ? impl_->member(json, step)
           : json.starts_with('[') ? impl_->element(json, step)
                                   : std::string_view();
    if (json.empty()) break;
  }
  impl_->give_back();
  return json;
}

bool JsonReader::valid(std::string_view json) {
  // The whole tree is checked, and thrown away: the only full validation that the library offers.
  if (!impl_->checker) impl_->checker = std::make_unique<simdjson::dom::parser>();
  simdjson::dom::element element;
  const bool good = !impl_->checker->parse(json.data(), json.size(), false).get(element);
  if (impl_->checker->capacity() > kKeptCapacity) impl_->checker.reset();
  return good;
}

}  // namespace relay::envelope
