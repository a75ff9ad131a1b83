#include "core/dead_letter.h"

#include <utility>

namespace relay {

DeadLetter DeadLetter::from(const Message& message, Error error) {
  DeadLetter letter;
  letter.message_id = message.id;
  letter.subject = message.subject;
  letter.key = message.key;
  letter.op = message.op;
  letter.body = message.body;
  letter.content_type = message.content_type;
  letter.stream_table = message.stream_table;
  letter.headers.reserve(message.headers.size());
  for (const Header& header : message.headers) {
    letter.headers.emplace_back(header.name, header.value);
  }
  letter.outbox_id = message.outbox_id;
  letter.full_refresh = message.full_refresh;
  letter.tombstone = message.tombstone;
  letter.error = std::move(error);
  return letter;
}

Message DeadLetter::to_message(std::vector<Header>& message_headers) const {
  message_headers.clear();
  message_headers.reserve(headers.size());
  for (const auto& [name, value] : headers) message_headers.push_back({name, value});
  Message message;
  message.id = message_id;
  message.subject = subject;
  message.key = key;
  message.op = op;
  message.body = body;
  message.content_type = content_type;
  message.stream_table = stream_table;
  message.headers = message_headers;
  message.outbox_id = outbox_id;
  message.full_refresh = full_refresh;
  message.tombstone = tombstone;
  return message;
}

}  // namespace relay
