#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/field_tables.h"
#include "config/fields.h"
#include "core/error.h"

namespace relay {

/// What of a message the mapping may look at.
struct MappedMessage {
  std::string_view subject;
  std::string_view key;
  std::string_view payload;
  std::function<std::optional<std::string>(std::string_view name)> header;  ///< may be empty
};

/// The options by which a source says what of a broker's message becomes which column of an inbox.
inline constexpr std::array kMappingFields = {
    config::Field{.name = "id_from",
                  .meaning =
                      "what becomes the event's id: header:NAME, json:/pointer, key, subject, "
                      "or template:...; a message without it has the default"},
    config::Field{.name = "event_type_from",
                  .meaning = "what becomes the event's type: as id_from"},
    config::Field{.name = "aggregate_id_from",
                  .meaning = "what becomes the event's key: as id_from",
                  .aliases = "key_from"},
    config::Field{.name = "trace_id_from",
                  .meaning = "what becomes the header trace_id: as id_from"},
};

/// A source's own table with the mapping's fields behind it:
/// `constexpr auto kSourceFields = with_mapping_fields(std::array{Field{...}, ...});`
template <std::size_t size>
constexpr auto with_mapping_fields(const std::array<config::Field, size>& own) {
  return config::joined(own, kMappingFields);
}

/// Takes ids, types, keys and trace ids out of messages, as the options of a source say:
///
/// - `header:NAME`: the header of that name
/// - `json:/pointer`: what an RFC 6901 pointer leads to in a JSON payload: a string without its
///   quotes, a number as it stands, anything else as its JSON text
/// - `key`, `subject`: the message's own
/// - `template:...`: a text with any of these in braces, as in
///   `template:{subject}-{header:n}-{json:/id}`; `\{`, `\}` and `\\` are a brace and a backslash
///
/// One thread at a time.
class FieldMapping {
 public:
  static config::FieldTable fields() { return kMappingFields; }

  /// `values` were checked against a table that holds `fields()`. Misconfigured: an expression that
  /// is none.
  static Result<FieldMapping> make(const config::Values& values);

  FieldMapping();  ///< nothing is mapped
  ~FieldMapping();
  FieldMapping(FieldMapping&&) noexcept;
  FieldMapping& operator=(FieldMapping&&) noexcept;

  /// Null: not configured, or the message lacks it (an empty text, JSON null, one placeholder of a
  /// template): the source's default stands.
  std::optional<std::string> id(const MappedMessage&) const;
  std::optional<std::string> event_type(const MappedMessage&) const;
  std::optional<std::string> aggregate_id(const MappedMessage&) const;
  std::optional<std::string> trace_id(const MappedMessage&) const;

 private:
  struct Part {
    enum class Kind { text, header, json, key, subject };
    Kind kind = Kind::text;
    std::string text;               // of a text, or a header's name
    std::vector<std::string> path;  // of a pointer
  };
  using Expression = std::vector<Part>;  // empty: not configured
  class Json;

  static Result<Part> parse_part(std::string_view text, std::string_view option);
  static Result<Expression> parse_template(std::string_view text, std::string_view option);
  static Result<Expression> parse(std::string_view text, std::string_view option);

  std::optional<std::string> value(const Part& part, const MappedMessage& message) const;
  std::optional<std::string> value(const Expression& expression,
                                   const MappedMessage& message) const;

  Expression id_;
  Expression event_type_;
  Expression aggregate_id_;
  Expression trace_id_;
  std::unique_ptr<Json> json_;
};

}  // namespace relay
