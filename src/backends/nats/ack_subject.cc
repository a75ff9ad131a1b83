#include "backends/nats/ack_subject.h"

#include <array>
#include <charconv>

namespace relay::nats {

namespace {

template <class Number>
bool read(std::string_view text, Number& number) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

}  // namespace

std::optional<AckSubject> parse_ack_subject(std::string_view reply) {
  constexpr std::size_t kShort = 9;
  std::array<std::string_view, 16> tokens;
  std::size_t count = 0;
  while (count < tokens.size()) {
    const auto dot = reply.find('.');
    tokens[count++] = reply.substr(0, dot);
    if (dot == std::string_view::npos) break;
    reply.remove_prefix(dot + 1);
  }
  if (count < kShort || tokens[0] != "$JS" || tokens[1] != "ACK") return std::nullopt;
  const std::size_t stream = count == kShort ? 2 : 4;
  if (stream + 7 > count) return std::nullopt;
  AckSubject found;
  found.stream = tokens[stream];
  if (!read(tokens[stream + 2], found.delivered) || !read(tokens[stream + 3], found.sequence) ||
      !read(tokens[stream + 4], found.consumer_sequence) ||
      !read(tokens[stream + 5], found.time_ns) || !read(tokens[stream + 6], found.pending)) {
    return std::nullopt;
  }
  return found;
}

}  // namespace relay::nats
