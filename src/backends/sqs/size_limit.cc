#include "backends/sqs/size_limit.h"

#include <simdjson.h>

#include <charconv>

namespace relay::sqs {

SizeLimit SizeLimit::of(std::optional<std::size_t> queue, std::optional<std::size_t> option) {
  if (option && (!queue || *option < *queue)) return {*option, Said::by_option};
  if (queue) return {*queue, Said::by_queue};
  return {};
}

std::optional<std::size_t> largest_message_of(std::string_view answer) {
  simdjson::dom::parser parser;
  std::string_view text;
  if (parser.parse(answer.data(), answer.size())["Attributes"]["MaximumMessageSize"].get(text)) {
    return std::nullopt;
  }
  std::size_t bytes = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, bytes);
  if (error != std::errc() || end != last || bytes == 0) return std::nullopt;
  return bytes;
}

}  // namespace relay::sqs
