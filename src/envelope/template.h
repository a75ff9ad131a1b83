#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "envelope/column.h"
#include "envelope/json_reader.h"

namespace relay::envelope {

/// What `{name}` stands for.
enum class Variable : std::uint8_t {
  stream_table,
  op,
  outbox_id,
  refresh_id,
  event_type,
  key,
  schema
};
inline constexpr std::size_t kVariables = 7;

/// The variables' values for one message. One that is not set renders `_null`.
class Variables {
 public:
  void set(Variable variable, std::string_view value) { values_[index(variable)] = value; }
  void clear(Variable variable) { values_[index(variable)].reset(); }
  const std::optional<std::string_view>& operator[](Variable variable) const {
    return values_[index(variable)];
  }

 private:
  static std::size_t index(Variable variable) { return static_cast<std::size_t>(variable); }
  std::array<std::optional<std::string_view>, kVariables> values_;
};

/// A text with `{variables}` and `{{ columns }}`, compiled once. `\{`, `\}` and `\\` are a brace
/// and a backslash; a backslash before anything else is itself. A column may be a dotted path into
/// JSON (`{{ address.city }}`, `{{ items.0.sku }}`), and a name in double quotes is taken as it is
/// (`{{ "odd.name" }}`). NULL, and what is not there inside JSON, renders `_null`.
class Template {
 public:
  using Escape = void (*)(std::string& out, std::string_view value);

  /// `option` is the name by which an error calls it. Misconfigured: with position (counted in
  /// characters from 1) and, for an unknown variable, the nearest known one.
  static Result<Template> compile(std::string_view text, std::string_view option);

  bool uses(Variable variable) const;
  bool has_columns() const { return has_columns_; }
  /// Whether messages of one record can render differently.
  bool varies_by_op() const { return uses(Variable::op) || uses(Variable::event_type); }
  bool varies_by_row() const { return has_columns_ || uses(Variable::key); }
  /// Whether records of one batch can render differently.
  bool varies() const;

  /// Appends the text; `escape` (may be null) is applied to values. Returns null, or the column
  /// that the row does not have.
  const ColumnPath* render(std::string& out, const Variables& variables, const RowView& row,
                           JsonReader& reader, Escape escape) const;

 private:
  struct Part {
    enum class Kind { text, variable, column };
    Kind kind = Kind::text;
    std::string text;
    Variable variable{};
    ColumnPath column;
  };
  class Compiler;

  std::vector<Part> parts_;
  std::uint8_t variables_ = 0;  // a bit each
  bool has_columns_ = false;
};

/// Appends a raw JSON value as text: a string without quotes and escapes, NULL as `_null`, anything
/// else as it is.
void append_value_text(std::string& out, std::string_view raw, JsonReader& reader,
                       Template::Escape escape);

}  // namespace relay::envelope
