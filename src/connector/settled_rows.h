#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/mutex.h"
#include "core/record.h"

namespace relay {

/// The rows of an outbox that a pipeline of this process settled last. A standby that lagged and
/// was promoted lacks some of them and has an older position, so that the database itself cannot
/// tell what it lost: this memory can. It outlives the pipeline's sources. Any thread.
class SettledRows {
 public:
  /// So many rows are remembered; of a larger loss this many are counted.
  static constexpr std::size_t kKept = 16384;

  struct Row {
    std::int64_t id = 0;
    std::uint64_t tag = 0;  ///< of its pgt_id: another row may have the same id later
  };
  static std::uint64_t tag_of(std::string_view pgt_id);

  /// A source begins to read an outbox: what was read and not settled is read again, and rows of
  /// another outbox are forgotten.
  void begin(const std::string& incarnation);
  /// Records that were handed out, in their order.
  void read(std::span<const Record> records);
  /// All records up to that id are settled.
  void settle(std::int64_t id);

  /// What is remembered, to be looked for in the database.
  struct Memory {
    std::string incarnation;
    std::string server;  ///< where it was last looked for; empty: nowhere yet
    std::vector<Row> rows;
  };
  bool empty() const;
  Memory memory() const;
  /// `server` holds the rows `there`, by rising id; it deleted those up to `purged_below` itself.
  void compare(const Memory& looked_for, const std::string& server, std::span<const Row> there,
               std::int64_t purged_below, const std::string& outbox);
  void forget();

  /// Rows that were settled and are gone, since they were last acknowledged.
  struct Loss {
    std::string outbox;
    std::int64_t rows = 0;
    bool at_least = false;  ///< there may be more, which are not remembered
    std::int64_t first = 0;
    std::int64_t last = 0;
    std::chrono::system_clock::time_point at{};
  };
  std::optional<Loss> loss() const;
  /// The operator knows of the loss.
  void acknowledge();

 private:
  mutable Mutex mutex_;
  std::string incarnation_ RELAY_GUARDED_BY(mutex_);
  std::string server_ RELAY_GUARDED_BY(mutex_);
  std::deque<Row> read_ RELAY_GUARDED_BY(mutex_);
  std::deque<Row> settled_ RELAY_GUARDED_BY(mutex_);
  bool forgot_some_ RELAY_GUARDED_BY(mutex_) = false;
  std::optional<Loss> loss_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay
