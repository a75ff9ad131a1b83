#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backends/redis/codec.h"

namespace relay::redis {

/// What XINFO GROUPS says of one group.
struct GroupState {
  std::string name;
  std::string last_delivered;
  std::int64_t pending = 0;         ///< delivered to any consumer, and not acknowledged
  std::optional<std::int64_t> lag;  ///< not delivered yet, where the server knows

  /// Nothing where it is no such reply.
  static std::optional<GroupState> of(const Reply& fields);
};

/// Counts the entries of a stream behind one of them, page by page. One that is deleted after it
/// was counted stays counted until the beginning moves.
class EntryCount {
 public:
  /// The entries behind this one are wanted; goes on where they are counted already.
  void begin(const std::string& entry);
  /// From which id on the next page is to be read.
  std::string next() const;
  void add(const std::string& entry);
  std::int64_t count() const { return count_; }

 private:
  std::string begin_;
  std::string last_;
  std::int64_t count_ = 0;
};

}  // namespace relay::redis
