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
  /// Begins a record. True: its shape is another one than that of the record before.
  bool begin(std::size_t record);
  const Record& record() const { return batch_.records.records[record_]; }
  /// That of the record; an empty one where it comes from no table.
  const TableShape& shape() const { return *shape_; }

  std::string_view keep(std::string_view text) { return batch_.arena.copy(text); }
  std::span<const Header> keep(std::span<const Header> headers);
  /// A new message of the record, with what every message of it has.
  Message& add();

  MessageBatch finish();

 private:
  MessageBatch batch_;
  std::size_t record_ = 0;
  const TableShape* shape_ = nullptr;
};

}  // namespace relay::envelope
