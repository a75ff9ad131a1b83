#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/message.h"

namespace relay::file {

/// Messages that own their text.
class Messages {
 public:
  Message& add(std::string_view id, std::string_view body) {
    Message message;
    message.id = keep(id);
    message.body = keep(body);
    message.subject = "orders";
    message.key = "k";
    message.op = "insert";
    message.content_type = "application/json";
    list_.push_back(message);
    return list_.back();
  }
  /// `count` messages of one line each: {"n":<from>} and so on.
  static Messages numbered(int from, int count, std::size_t padding = 0) {
    Messages messages;
    for (int n = from; n < from + count; ++n)
      messages.add("p:" + std::to_string(n), body(n, padding));
    return messages;
  }
  static std::string body(int n, std::size_t padding = 0) {
    return "{\"n\":" + std::to_string(n) + ",\"p\":\"" + std::string(padding, 'x') + "\"}";
  }
  std::span<const Message> span() const { return list_; }
  std::string_view keep(std::string_view text) { return texts_.emplace_back(text); }

 private:
  std::deque<std::string> texts_;
  std::vector<Message> list_;
};

}  // namespace relay::file
