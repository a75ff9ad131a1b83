#pragma once

#include <cstddef>
#include <string_view>

namespace relay::outbox {

/// Walks over JSON that PostgreSQL wrote, from value to value, without looking into them: brackets
/// are counted and strings passed over. Never reads beyond the text, whatever it holds.
class JsonScanner {
 public:
  explicit JsonScanner(std::string_view text)
      : next_(text.data()), end_(text.data() + text.size()) {}

  /// Takes this character, behind white space. False: another one stands there.
  bool take(char expected);
  /// Takes a string and gives what stands between its quotes, escapes as they are.
  bool take_string(std::string_view& raw);
  /// Takes any value and gives its text.
  bool take_value(std::string_view& raw);
  /// Takes a comma and one blank, as PostgreSQL writes them between members.
  bool take_separator();
  /// What is not taken yet.
  std::string_view left() const { return {next_, static_cast<std::size_t>(end_ - next_)}; }
  /// Takes so many bytes, which are there.
  void skip(std::size_t bytes) { next_ += bytes; }
  /// Nothing but white space is left.
  bool at_end();

 private:
  void skip_space();
  bool skip_string();
  bool skip_structure();

  const char* next_;
  const char* end_;
};

/// Calls `visit(name, value)` for each member of a JSON object, as they stand in the text, until it
/// gives false. False: the text is no object, or `visit` gave false.
template <class Visit>
bool for_each_member(std::string_view object, Visit&& visit) {
  JsonScanner scanner(object);
  if (!scanner.take('{')) return false;
  if (scanner.take('}')) return scanner.at_end();
  while (true) {
    std::string_view name;
    std::string_view value;
    if (!scanner.take_string(name) || !scanner.take(':') || !scanner.take_value(value))
      return false;
    if (!visit(name, value)) return false;
    if (scanner.take('}')) return scanner.at_end();
    if (!scanner.take(',')) return false;
  }
}

}  // namespace relay::outbox
