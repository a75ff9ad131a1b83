#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "core/message.h"
#include "envelope/plan.h"

namespace relay::envelope {

/// The messages of a batch while they are made: keeps their texts in the batch's memory.
class Output {
 public:
  explicit Output(RecordBatch records);

  const RecordBatch& records() const { return batch_.records; }
  const TableShape& shape() const { return *shape_; }

  std::string_view keep(std::string_view text) { return batch_.arena.copy(text); }
  std::span<const Header> keep(std::span<const Header> headers);
  /// A new message of a record, with what every message of it has.
  Message& add(std::size_t record);

  MessageBatch finish();

 private:
  MessageBatch batch_;
  const TableShape* shape_;
};

}  // namespace relay::envelope
