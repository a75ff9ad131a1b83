#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/fields.h"
#include "config/option_table.h"
#include "core/error.h"

namespace relay {

/// The parts of a message that a mapping may use.
struct MappedMessage {
  std::string_view subject;
  std::string_view key;
  std::string_view payload;
  std::function<std::optional<std::string>(std::string_view name)> header;  ///< may be empty
};

/// Where a value is taken from, as an option of the mapping says (see FieldMapping).
struct MappingExpression {
  struct Part {
    enum class Kind { text, header, json, key, subject };
    Kind kind = Kind::text;
    std::string text;               ///< of a text, or a header's name
    std::vector<std::string> path;  ///< of a pointer
  };
  std::vector<Part> parts;  ///< empty: not configured

  /// Misconfigured: a text that is no expression. The error names it as `option`.
  static Result<MappingExpression> parse(const std::string& text, std::string_view option);
};

/// The options of the mapping.
struct MappingOptions {
  MappingExpression id;
  MappingExpression event_type;
  MappingExpression aggregate_id;
  MappingExpression trace_id;
};

/// The options that say which part of a broker's message becomes which column of an inbox.
inline constexpr config::Option<MappingOptions> kMappingOptions[] = {
    {{.name = "id_from",
      .meaning = "what becomes the event's id: header:NAME, json:/pointer, key, subject, "
                 "or template:...; a message without it has the default"},
     config::fills_with<&MappingExpression::parse, &MappingOptions::id>},
    {{.name = "event_type_from", .meaning = "what becomes the event's type: as id_from"},
     config::fills_with<&MappingExpression::parse, &MappingOptions::event_type>},
    {{.name = "aggregate_id_from",
      .meaning = "what becomes the event's key: as id_from",
      .aliases = "key_from"},
     config::fills_with<&MappingExpression::parse, &MappingOptions::aggregate_id>},
    {{.name = "trace_id_from", .meaning = "what becomes the header trace_id: as id_from"},
     config::fills_with<&MappingExpression::parse, &MappingOptions::trace_id>},
};

/// The fields of a source's own table with the mapping's behind them:
/// `constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);`
template <class Table>
constexpr auto with_mapping_fields(const Table& own) {
  return config::fields_of(own, kMappingOptions);
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
  static config::FieldTable fields();

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
  class Json;

  std::optional<std::string> value(const MappingExpression::Part& part,
                                   const MappedMessage& message) const;
  std::optional<std::string> value(const MappingExpression& expression,
                                   const MappedMessage& message) const;

  MappingOptions options_;
  std::unique_ptr<Json> json_;
};

}  // namespace relay
