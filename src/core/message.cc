#include "core/message.h"

#include <iterator>

namespace relay {

void MessageBatch::append(MessageBatch next) {
  const std::size_t offset = records.records.size();
  arena.absorb(std::move(next.arena));
  records.arena.absorb(std::move(next.records.arena));
  records.records.insert(records.records.end(),
                         std::make_move_iterator(next.records.records.begin()),
                         std::make_move_iterator(next.records.records.end()));
  records.shapes.insert(records.shapes.end(), std::make_move_iterator(next.records.shapes.begin()),
                        std::make_move_iterator(next.records.shapes.end()));
  messages.reserve(messages.size() + next.messages.size());
  for (Message& message : next.messages) {
    message.record += offset;
    messages.push_back(std::move(message));
  }
  bytes += next.bytes;
}

}  // namespace relay
