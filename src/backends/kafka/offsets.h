#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "connector/unsettled.h"
#include "core/mutex.h"

namespace relay::kafka {

/// The records that were read and not settled yet: numbered 1, 2, ... in the order of reading, each
/// with its place in the cluster. Says which offsets may be committed once records are settled.
/// Nothing of a partition that was given up is committed any more: the member that has it now reads
/// on from its last commit. Any thread.
class Offsets {
 public:
  struct Next {
    std::string topic;
    std::int32_t partition = 0;
    std::int64_t offset = 0;  ///< of the first record that is not settled

    friend bool operator==(const Next&, const Next&) = default;
  };

  /// A record was read; its number.
  std::int64_t add(std::string_view topic, std::int32_t partition, std::int64_t offset);
  /// Everything up to and including this number is settled: where its partitions go on now.
  std::vector<Next> settle(std::int64_t number);

  /// The partition is no longer ours.
  void give_up(std::string_view topic, std::int32_t partition);
  void give_up_all();

  std::size_t unsettled() const;
  /// The first offset of a partition that is ours and not settled; nothing where all is.
  std::optional<std::int64_t> first_unsettled(std::string_view topic, std::int32_t partition);

 private:
  struct Partition {
    std::string topic;
    std::int32_t number;
    std::int64_t generation = 0;  // rises when it is given up
    std::size_t unsettled = 0;    // of this generation
    std::int64_t first_unsettled = 0;

    void give_up() {
      ++generation;
      unsettled = 0;
    }
  };
  struct Entry {
    std::size_t partition;  // index
    std::int64_t generation;
    std::int64_t offset;
  };
  std::size_t index_of(std::string_view topic, std::int32_t partition) RELAY_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<Partition> partitions_ RELAY_GUARDED_BY(mutex_);
  std::size_t last_ RELAY_GUARDED_BY(mutex_) = 0;  // the partition that was asked for last
  Unsettled<Entry> unsettled_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::kafka
