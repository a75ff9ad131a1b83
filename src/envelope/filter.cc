#include "envelope/filter.h"

#include <fmt/core.h>

#include <algorithm>
#include <compare>
#include <cstddef>
#include <utility>

#include "envelope/decimal.h"
#include "envelope/filter_node.h"

namespace relay::envelope {
namespace {

// SQL's three-valued logic, in the order that makes "and" a minimum and "or" a maximum.
enum class Truth : std::uint8_t { no, unknown, yes };

Truth truth_of(bool value) {
  return value ? Truth::yes : Truth::no;
}

Truth opposite(Truth truth) {
  return static_cast<Truth>(static_cast<int>(Truth::yes) - static_cast<int>(truth));
}

bool satisfies(Comparison comparison, std::strong_ordering order) {
  switch (comparison) {
    case Comparison::equal:
      return order == 0;
    case Comparison::not_equal:
      return order != 0;
    case Comparison::less:
      return order < 0;
    case Comparison::less_or_equal:
      return order <= 0;
    case Comparison::more:
      return order > 0;
    case Comparison::more_or_equal:
      return order >= 0;
  }
  return false;
}

// Length of the UTF-8 character that begins at `i`.
std::size_t character_length(std::string_view text, std::size_t i) {
  std::size_t end = i + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end - i;
}

// Goes back to the last % on a mismatch: the time is at most proportional to the length of the
// pattern times that of the text.
bool matches_like(std::string_view text, std::string_view pattern) {
  std::size_t t = 0;
  std::size_t p = 0;
  std::size_t percent = std::string_view::npos;
  std::size_t percent_text = 0;
  while (t < text.size()) {
    const char wanted = p < pattern.size() ? pattern[p] : '\0';
    const bool escape = wanted == '\\' && p + 1 < pattern.size();
    if (p < pattern.size() && wanted == '%') {
      percent = ++p;
      percent_text = t;
    } else if (p < pattern.size() && wanted == '_') {
      t += character_length(text, t);
      ++p;
    } else if (p < pattern.size() && text[t] == (escape ? pattern[p + 1] : wanted)) {
      ++t;
      p += escape ? 2 : 1;
    } else if (percent != std::string_view::npos) {
      p = percent;
      percent_text += character_length(text, percent_text);
      t = percent_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '%') ++p;
  return p == pattern.size();
}

std::string_view kind_name(JsonKind kind) {
  switch (kind) {
    case JsonKind::null:
      return "null";
    case JsonKind::boolean:
      return "true or false";
    case JsonKind::number:
      return "a number";
    case JsonKind::text:
      return "a text";
    case JsonKind::structure:
      return "an object or array";
  }
  return "";
}

// A value in the form for comparisons.
struct Value {
  JsonKind kind = JsonKind::null;
  std::string_view text;  // digits of a number, or a text
  bool truth = false;
};

}  // namespace

Filter::Filter(std::unique_ptr<Node> root) : root_(std::move(root)) {}
Filter::Filter(Filter&&) noexcept = default;
Filter& Filter::operator=(Filter&&) noexcept = default;
Filter::~Filter() = default;

class Filter::Evaluation {
 public:
  Evaluation(const RowView& row, JsonReader& reader, bool lenient, std::string& why)
      : row_(row), reader_(reader), lenient_(lenient), why_(why) {}

  bool failed() const { return failed_; }

  Truth test(const Node& node) {
    switch (node.kind) {
      case Node::Kind::all_of:
        return fold(node, Truth::yes, Truth::no);
      case Node::Kind::any_of:
        return fold(node, Truth::no, Truth::yes);
      case Node::Kind::negate:
        return opposite(test(*node.children.front()));
      case Node::Kind::compare:
        return compare(node.left, node.comparison, node.right);
      case Node::Kind::one_of:
        return one_of(node);
      case Node::Kind::like:
        return like(node);
      case Node::Kind::is_null:
        return truth_of((value_of(node.left, left_text_).kind == JsonKind::null) != node.negated);
      case Node::Kind::holds:
        return holds(node.left);
    }
    return Truth::unknown;
  }

 private:
  Truth fold(const Node& node, Truth start, Truth decisive) {
    Truth result = start;
    for (const auto& child : node.children) {
      const Truth truth = test(*child);
      if (failed_ || truth == decisive) return truth;
      if (truth == Truth::unknown) result = Truth::unknown;
    }
    return result;
  }

  Truth compare(const Operand& left, Comparison comparison, const Operand& right) {
    const Value a = value_of(left, left_text_);
    const Value b = value_of(right, right_text_);
    if (a.kind == JsonKind::null || b.kind == JsonKind::null) return Truth::unknown;
    const bool comparable = a.kind == b.kind && a.kind != JsonKind::structure;
    if (!comparable) return mismatch(left, a.kind, right, b.kind);
    return truth_of(satisfies(comparison, order(a, b)));
  }

  static std::strong_ordering order(const Value& a, const Value& b) {
    if (a.kind == JsonKind::number) return Decimal(a.text) <=> Decimal(b.text);
    if (a.kind == JsonKind::boolean) return a.truth <=> b.truth;
    return a.text <=> b.text;
  }

  Truth one_of(const Node& node) {
    Truth result = Truth::no;
    for (const Operand& candidate : node.list) {
      const Truth truth = compare(node.left, Comparison::equal, candidate);
      if (failed_) return truth;
      result = std::max(result, truth);
      if (result == Truth::yes) break;
    }
    return node.negated ? opposite(result) : result;
  }

  Truth like(const Node& node) {
    const Value value = value_of(node.left, left_text_);
    if (value.kind == JsonKind::null) return Truth::unknown;
    if (value.kind != JsonKind::text) {
      return mismatch(node.left, value.kind, node.right, JsonKind::text);
    }
    return truth_of(matches_like(value.text, node.right.text) != node.negated);
  }

  Truth holds(const Operand& operand) {
    const Value value = value_of(operand, left_text_);
    if (value.kind == JsonKind::null) return Truth::unknown;
    if (value.kind == JsonKind::boolean) return truth_of(value.truth);
    return mismatch(operand, value.kind, Operand{Operand::Kind::boolean, {}, {}, true},
                    JsonKind::boolean);
  }

  Value value_of(const Operand& operand, std::string& buffer) {
    switch (operand.kind) {
      case Operand::Kind::text:
        return {JsonKind::text, operand.text, false};
      case Operand::Kind::number:
        return {JsonKind::number, operand.text, false};
      case Operand::Kind::boolean:
        return {JsonKind::boolean, {}, operand.truth};
      case Operand::Kind::column:
        break;
    }
    const std::string_view raw = find_value(row_, operand.column, reader_);
    Value value{kind_of(raw), raw, raw.starts_with('t')};
    if (value.kind == JsonKind::text) {
      buffer.clear();
      if (!reader_.append_text(raw, buffer)) buffer = raw;
      value.text = buffer;
    }
    return value;
  }

  Truth mismatch(const Operand& left, JsonKind left_kind, const Operand& right,
                 JsonKind right_kind) {
    if (lenient_) return Truth::unknown;
    failed_ = true;
    const auto describe = [](const Operand& operand, JsonKind kind) {
      return operand.kind == Operand::Kind::column
                 ? fmt::format("column {} ({})", operand.column.to_string(), kind_name(kind))
                 : std::string(kind_name(kind));
    };
    why_ = fmt::format("the filter cannot compare {} with {}", describe(left, left_kind),
                       describe(right, right_kind));
    return Truth::unknown;
  }

  const RowView& row_;
  JsonReader& reader_;
  bool lenient_;
  std::string& why_;
  bool failed_ = false;
  std::string left_text_;
  std::string right_text_;
};

Filter::Answer Filter::test(const RowView& row, JsonReader& reader, bool lenient,
                            std::string& why) const {
  if (!lenient) {
    // Checks all columns first: else the other columns' values would decide whether a missing one
    // is noticed.
    for (const ColumnPath& path : columns_) {
      if (row.rows->find(row.index, path.column) != nullptr) continue;
      why = fmt::format("the filter asks for column {}, which the row does not have",
                        path.to_string());
      return Answer::cannot_say;
    }
  }
  Evaluation evaluation(row, reader, lenient, why);
  const Truth truth = evaluation.test(*root_);
  if (evaluation.failed()) return Answer::cannot_say;
  return truth == Truth::yes ? Answer::pass : Answer::leave_out;
}

}  // namespace relay::envelope
