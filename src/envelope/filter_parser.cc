#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>

#include "core/text.h"
#include "envelope/column.h"
#include "envelope/decimal.h"
#include "envelope/filter_node.h"

namespace relay::envelope {
namespace {

// The largest nesting of parentheses and "not": the evaluation recurses as deep.
constexpr int kLargestDepth = 100;

enum class TokenKind : std::uint8_t { word, quoted_name, text, number, symbol, end, broken };

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;       // its value; of a word as it is written
  std::string_view seen;  // as it stands in the condition
  std::size_t at = 0;
  std::string_view trouble;  // of a broken one
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

constexpr std::array<std::string_view, 9> kKeywords = {"and", "or",   "not",  "in",   "like",
                                                       "is",  "null", "true", "false"};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Token next() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    const std::size_t begin = at_;
    Token token = read();
    token.at = begin;
    token.seen = text_.substr(begin, at_ - begin);
    after_point_ = token.seen == ".";
    return token;
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

  Token read() {
    if (at_ == text_.size()) return {};
    const char c = text_[at_];
    if (c == '\'') return read_quoted('\'', TokenKind::text, "a text is opened and not closed");
    if (c == '"')
      return read_quoted('"', TokenKind::quoted_name, "a name is opened and not closed");
    if (is_digit(c) && after_point_) return read_word();  // the number of an element
    if (is_digit(c) || is_signed_number(c)) return read_number();
    if (is_plain_byte(c)) return read_word();
    return read_symbol();
  }

  bool is_signed_number(char c) const {
    return (c == '-' || c == '+') && number_length(text_.substr(at_)) > 0;
  }

  Token read_quoted(char quote, TokenKind kind, std::string_view trouble) {
    Token token{kind, {}, {}, 0, {}};
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] != quote) {
        token.text.push_back(text_[at_]);
      } else if (at_ + 1 < text_.size() && text_[at_ + 1] == quote) {
        token.text.push_back(quote);
        ++at_;
      } else {
        ++at_;
        return token;
      }
    }
    return {TokenKind::broken, {}, {}, 0, trouble};
  }

  Token read_number() {
    const std::size_t length = number_length(text_.substr(at_));
    Token token{TokenKind::number, std::string(text_.substr(at_, length)), {}, 0, {}};
    at_ += length;
    if (at_ < text_.size() && is_plain_byte(text_[at_])) {
      return {TokenKind::broken, {}, {}, 0, "a number runs into a word"};
    }
    return token;
  }

  Token read_word() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_plain_byte(text_[at_])) ++at_;
    return {TokenKind::word, std::string(text_.substr(begin, at_ - begin)), {}, 0, {}};
  }

  Token read_symbol() {
    for (const std::string_view symbol :
         {"!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ",", "."}) {
      if (!text_.substr(at_).starts_with(symbol)) continue;
      at_ += symbol.size();
      return {TokenKind::symbol, std::string(symbol), {}, 0, {}};
    }
    ++at_;
    return {TokenKind::broken, {}, {}, 0, "this character means nothing here"};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool after_point_ = false;
};

std::optional<Comparison> comparison_of(std::string_view symbol) {
  if (symbol == "=") return Comparison::equal;
  if (symbol == "!=" || symbol == "<>") return Comparison::not_equal;
  if (symbol == "<") return Comparison::less;
  if (symbol == "<=") return Comparison::less_or_equal;
  if (symbol == ">") return Comparison::more;
  if (symbol == ">=") return Comparison::more_or_equal;
  return std::nullopt;
}

}  // namespace

// Recursive descent; the first error is kept, and everything after it returns at once.
class Filter::Compiler {
 public:
  explicit Compiler(std::string_view text) : text_(text), lexer_(text) { advance(); }

  Result<Filter> run() {
    if (token_.kind == TokenKind::end) complain("there is no condition");
    std::unique_ptr<Node> root = any_of(0);
    if (!error_ && token_.kind != TokenKind::end) {
      complain(fmt::format("{} is not expected here", seen()));
    }
    if (error_) return fail(std::move(*error_));
    Filter filter(std::move(root));
    filter.columns_ = std::move(columns_);
    return filter;
  }

 private:
  void advance() {
    token_ = lexer_.next();
    if (token_.kind == TokenKind::broken) complain(std::string(token_.trouble));
  }

  std::string seen() const {
    return token_.kind == TokenKind::end ? "the end" : fmt::format("\"{}\"", token_.seen);
  }

  void complain(std::string what) {
    if (error_) return;
    const auto before = text_.substr(0, token_.at);
    const auto position = std::count_if(before.begin(), before.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    });
    error_ = Error{ErrorClass::misconfigured,
                   "filter",
                   fmt::format("filter, character {}: {}", position + 1, what),
                   "a filter is a condition such as: amount > 1000 and region in ('eu', 'us')",
                   {}};
  }

  bool is_keyword(std::string_view word) const {
    return token_.kind == TokenKind::word && equal_ignoring_case(token_.text, word);
  }
  bool is_symbol(std::string_view symbol) const {
    return token_.kind == TokenKind::symbol && token_.text == symbol;
  }
  bool accept_keyword(std::string_view word) {
    if (error_ || !is_keyword(word)) return false;
    advance();
    return true;
  }
  bool accept_symbol(std::string_view symbol) {
    if (error_ || !is_symbol(symbol)) return false;
    advance();
    return true;
  }
  void expect_symbol(std::string_view symbol) {
    if (!accept_symbol(symbol)) complain(fmt::format("\"{}\" is expected, not {}", symbol, seen()));
  }

  static std::unique_ptr<Node> make(Node::Kind kind) {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    return node;
  }

  std::unique_ptr<Node> any_of(int depth) {
    return chain(Node::Kind::any_of, "or", depth, &Compiler::all_of);
  }
  std::unique_ptr<Node> all_of(int depth) {
    return chain(Node::Kind::all_of, "and", depth, &Compiler::negation);
  }

  std::unique_ptr<Node> chain(Node::Kind kind, std::string_view word, int depth,
                              std::unique_ptr<Node> (Compiler::*part)(int)) {
    std::unique_ptr<Node> first = (this->*part)(depth);
    if (error_ || !is_keyword(word)) return first;
    auto node = make(kind);
    node->children.push_back(std::move(first));
    while (accept_keyword(word)) node->children.push_back((this->*part)(depth));
    return node;
  }

  std::unique_ptr<Node> negation(int depth) {
    if (depth > kLargestDepth) {
      complain("the condition is nested too deep");
      return nullptr;
    }
    if (accept_keyword("not")) {
      auto node = make(Node::Kind::negate);
      node->children.push_back(negation(depth + 1));
      return node;
    }
    if (accept_symbol("(")) {
      auto node = any_of(depth + 1);
      expect_symbol(")");
      return node;
    }
    return predicate();
  }

  std::unique_ptr<Node> predicate() {
    auto node = make(Node::Kind::holds);
    node->left = operand();
    if (error_) return node;
    if (token_.kind == TokenKind::symbol) {
      if (const auto comparison = comparison_of(token_.text)) {
        advance();
        node->kind = Node::Kind::compare;
        node->comparison = *comparison;
        node->right = operand();
        return node;
      }
    }
    if (accept_keyword("is")) return is_null(std::move(node));
    node->negated = accept_keyword("not");
    if (accept_keyword("in")) return one_of(std::move(node));
    if (accept_keyword("like")) return like(std::move(node));
    if (node->negated) complain(fmt::format("in or like is expected after not, not {}", seen()));
    const Operand::Kind kind = node->left.kind;
    if (kind == Operand::Kind::text || kind == Operand::Kind::number) {
      complain(fmt::format("a comparison is expected, not {}", seen()));
    }
    return node;
  }

  std::unique_ptr<Node> is_null(std::unique_ptr<Node> node) {
    node->kind = Node::Kind::is_null;
    node->negated = accept_keyword("not");
    if (!accept_keyword("null")) complain(fmt::format("null is expected after is, not {}", seen()));
    return node;
  }

  std::unique_ptr<Node> one_of(std::unique_ptr<Node> node) {
    node->kind = Node::Kind::one_of;
    expect_symbol("(");
    do {
      node->list.push_back(operand());
    } while (accept_symbol(","));
    expect_symbol(")");
    return node;
  }

  std::unique_ptr<Node> like(std::unique_ptr<Node> node) {
    node->kind = Node::Kind::like;
    if (token_.kind != TokenKind::text) {
      complain(fmt::format("a text in single quotes is expected after like, not {}", seen()));
    }
    node->right = operand();
    return node;
  }

  Operand operand() {
    Operand result;
    if (error_) return result;
    if (token_.kind == TokenKind::text || token_.kind == TokenKind::number) {
      const bool text = token_.kind == TokenKind::text;
      result.kind = text ? Operand::Kind::text : Operand::Kind::number;
      result.text = token_.text;
      advance();
    } else if (is_keyword("true") || is_keyword("false")) {
      result.kind = Operand::Kind::boolean;
      result.truth = is_keyword("true");
      advance();
    } else if (is_keyword("null")) {
      complain("nothing equals null: write \"is null\" or \"is not null\"");
    } else {
      result.column = column();
      columns_.push_back(result.column);
    }
    return result;
  }

  ColumnPath column() {
    ColumnPath path;
    path.column = name();
    while (accept_symbol(".")) {
      // Behind a point a keyword is a name like any other.
      const bool good = token_.kind == TokenKind::word || token_.kind == TokenKind::quoted_name;
      if (!good) complain(fmt::format("a name is expected after the point, not {}", seen()));
      path.inside.push_back(token_.text);
      advance();
    }
    return path;
  }

  std::string name() {
    const bool keyword =
        token_.kind == TokenKind::word &&
        std::find(kKeywords.begin(), kKeywords.end(), lower_case(token_.text)) != kKeywords.end();
    const bool good = (token_.kind == TokenKind::word && !keyword) ||
                      (token_.kind == TokenKind::quoted_name && !token_.text.empty());
    if (!good) {
      complain(fmt::format("a column or a value is expected, not {}", seen()));
      return {};
    }
    std::string result = token_.text;
    advance();
    return result;
  }

  std::string_view text_;
  Lexer lexer_;
  Token token_;
  std::optional<Error> error_;
  std::vector<ColumnPath> columns_;
};

Result<Filter> Filter::compile(std::string_view text) {
  return Compiler(text).run();
}

}  // namespace relay::envelope
