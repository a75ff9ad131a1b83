#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::redis {

/// What a server answers, as a value. Integers are in `integer`, everything else that is no array
/// in `text`.
struct Reply {
  enum class Kind { nil, status, text, error, integer, array };
  Kind kind = Kind::nil;
  std::int64_t integer = 0;
  std::string text;
  std::vector<Reply> elements;

  bool is_error() const { return kind == Kind::error; }
  bool is_array() const { return kind == Kind::array; }
};

/// Writes a command part by part behind others. Arguments may hold any bytes.
class CommandWriter {
 public:
  explicit CommandWriter(std::string& out) : out_(out) {}
  void begin(std::size_t arguments);
  void add(std::string_view argument);

 private:
  std::string& out_;
};

void append_command(std::string& out, std::span<const std::string_view> arguments);
void append_command(std::string& out, std::initializer_list<std::string_view> arguments);

/// Cuts the bytes of a connection into replies. One thread at a time.
class ReplyReader {
 public:
  ReplyReader();
  ~ReplyReader();
  ReplyReader(const ReplyReader&) = delete;
  ReplyReader& operator=(const ReplyReader&) = delete;

  void feed(std::string_view bytes);
  /// The next whole reply; null: more bytes are needed. Transient: these bytes are no Redis
  /// protocol, and no further ones can be understood.
  Result<std::optional<Reply>> next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::redis
