#include "envelope/output.h"

#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace relay::envelope {
namespace {

const TableShape kNoTable;

}  // namespace

Output::Output(RecordBatch records) {
  batch_.records = std::move(records);
  batch_.messages.reserve(batch_.records.records.size());
}

bool Output::begin(std::size_t record) {
  record_ = record;
  const TableShape* const last = shape_;
  const TableShape* const shape = this->record().shape;
  shape_ = shape != nullptr ? shape : &kNoTable;
  return shape_ != last;
}

std::span<const Header> Output::keep(std::span<const Header> headers) {
  static_assert(std::is_trivially_destructible_v<Header>);
  if (headers.empty()) return {};
  std::size_t room = headers.size_bytes() + alignof(Header);
  void* place = batch_.arena.allocate(room);
  std::align(alignof(Header), headers.size_bytes(), place, room);
  Header* kept = static_cast<Header*>(place);
  std::uninitialized_copy(headers.begin(), headers.end(), kept);
  return {kept, headers.size()};
}

Message& Output::add() {
  const Record& source = record();
  Message& message = batch_.messages.emplace_back();
  message.stream_table = shape_->name;
  message.outbox_id = source.outbox_id;
  message.created_at = source.created_at;
  message.record = record_;
  return message;
}

MessageBatch Output::finish() {
  batch_.bytes = batch_.records.arena.size() + batch_.arena.size() +
                 batch_.records.records.size() * sizeof(Record) +
                 batch_.messages.size() * sizeof(Message);
  return std::move(batch_);
}

}  // namespace relay::envelope
