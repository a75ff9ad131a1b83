#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace relay::redis {

/// Which entries are under way between reading and acknowledging, by the numbers that a source
/// gives its records (1, 2, ...). Any thread.
class Ledger {
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
  struct Underway {
    std::int64_t record;
    std::string entry;
  };

  mutable std::mutex mutex_;
  std::int64_t last_record_ = 0;
  std::vector<Underway> underway_;  // by record
  std::set<std::string> entries_;
};

}  // namespace relay::redis
