#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "connector/unsettled.h"
#include "core/mutex.h"

namespace relay::redis {

/// The ids of entries between reading and acknowledging, by the numbers that a source gives its
/// records. An entry that is read again meanwhile is recognised. Any thread.
class Receipts {
 public:
  /// The next record carries this entry; its number. 0: the entry is under way already.
  std::int64_t add(const std::string& entry);

  /// The entries of all records up to `record`, oldest first. They stay until `forget`.
  std::vector<std::string> settled(std::int64_t record) const;
  void forget(std::int64_t record);
  bool has(const std::string& entry) const;
  bool empty() const;
  /// Nothing is under way any more: what was not settled will be read again.
  void clear();

 private:
  mutable Mutex mutex_;
  Unsettled<std::string> unsettled_ RELAY_GUARDED_BY(mutex_);
  std::set<std::string> entries_ RELAY_GUARDED_BY(mutex_);  // the same
};

}  // namespace relay::redis
