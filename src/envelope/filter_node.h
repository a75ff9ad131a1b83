#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "envelope/filter.h"

namespace relay::envelope {

/// A column or a constant.
struct Operand {
  enum class Kind : std::uint8_t { column, text, number, boolean };
  Kind kind = Kind::column;
  ColumnPath column;
  std::string text;  ///< of a text, or the digits of a number
  bool truth = false;
};

enum class Comparison : std::uint8_t { equal, not_equal, less, less_or_equal, more, more_or_equal };

/// A part of a compiled condition.
struct Filter::Node {
  enum class Kind : std::uint8_t {
    all_of,   ///< children
    any_of,   ///< children
    negate,   ///< its one child
    compare,  ///< left, comparison, right
    one_of,   ///< left, list
    like,     ///< left, right: a constant text
    is_null,  ///< left
    holds,    ///< left: a boolean by itself
  };
  Kind kind = Kind::holds;
  Comparison comparison = Comparison::equal;
  bool negated = false;  ///< not in, not like, is not null
  Operand left;
  Operand right;
  std::vector<Operand> list;
  std::vector<std::unique_ptr<Node>> children;
};

}  // namespace relay::envelope
