#include "backends/rabbitmq/arguments.h"

#include <fmt/core.h>

#include <charconv>
#include <utility>

namespace relay::rabbitmq {

namespace {

constexpr std::size_t kLongestName = 128;

/// A flag or an environment variable has no types: what looks like a number or a boolean is one.
Argument guessed(const std::string& text) {
  if (text == "true" || text == "false") return text == "true";
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number);
  if (read.ec == std::errc() && read.ptr == end) return number;
  return text;
}

Argument argument_of(const config::Node& node) {
  if (const auto* boolean = node.boolean()) return *boolean;
  if (const auto* integer = node.integer()) return *integer;
  if (const auto* number = node.number()) return *number;
  if (node.origin() == config::Node::Origin::outside) return guessed(*node.text());
  return *node.text();
}

}  // namespace

Result<Arguments> parse_arguments(const std::map<std::string, config::Node>& given) {
  Arguments arguments;
  for (const auto& [name, node] : given) {
    if (name.empty() || name.size() > kLongestName) {
      return fail(misconfigured(
          "bad_argument",
          fmt::format("arguments: a name has 1 to {} bytes, not {}", kLongestName, name.size()),
          "correct the argument's name"));
    }
    arguments.emplace(name, argument_of(node));
  }
  return arguments;
}

}  // namespace relay::rabbitmq
