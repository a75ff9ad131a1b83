#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "envelope/column.h"
#include "envelope/json_reader.h"

namespace relay::envelope {

/// A condition on the columns of a row, as SQL's WHERE has it:
///
///     amount > 1000 and (region in ('eu', 'us') or note is not null) and name not like 'test%'
///
/// `= != <> < <= > >=`, `[not] in (...)`, `[not] like` (`%`, `_`, backslash), `is [not] null`,
/// `and`, `or`, `not`, parentheses, `true`, `false`, a boolean column by itself. Texts stand in
/// single quotes (`''` is a quote), numbers are compared exactly whatever their length, texts by
/// their bytes (so that ISO dates compare as dates). A column is written as it is called (upper and
/// lower case matter), in double quotes where the name is not a plain one or is a word of the
/// language; `a.b` looks into JSON. What is NULL, or not there inside JSON, makes a comparison
/// unknown, and unknown is not true.
class Filter {
 public:
  /// Misconfigured: the message names the position (characters, from 1).
  static Result<Filter> compile(std::string_view text);

  Filter(Filter&&) noexcept;
  Filter& operator=(Filter&&) noexcept;
  ~Filter();

  /// The verdict about a row.
  enum class Answer { pass, leave_out, cannot_say };
  /// `cannot_say`: the row has no such column, or a column's value is of another type than what it
  /// is compared with; `why` says which. With `lenient` both are unknown instead (an event is a
  /// document without fixed columns).
  Answer test(const RowView& row, JsonReader& reader, bool lenient, std::string& why) const;

 private:
  struct Node;
  class Compiler;
  class Evaluation;
  explicit Filter(std::unique_ptr<Node> root);
  std::unique_ptr<Node> root_;
  std::vector<ColumnPath> columns_;
};

}  // namespace relay::envelope
