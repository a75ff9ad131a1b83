#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::state {

/// Ids that a reader passes without delivering their rows: what was published before it began at
/// `latest`. Pure.
class SkipSet {
 public:
  SkipSet() = default;
  /// Of PostgreSQL's text of an int8multirange: "{[12,20),[25,26)}". Misconfigured: it is none.
  static Result<SkipSet> parse(std::string_view text);

  bool empty() const { return runs_.empty(); }
  bool contains(std::int64_t id) const { return !runs_.empty() && run_end(id) != 0; }
  /// The last id of the unbroken run of ids that holds `id`; 0: it is not in the set.
  std::int64_t run_end(std::int64_t id) const;
  /// The highest id; 0: the set is empty.
  std::int64_t last() const { return runs_.empty() ? 0 : runs_.back().last; }
  void clear() { runs_.clear(); }

 private:
  struct Run {
    std::int64_t first;
    std::int64_t last;
  };
  std::vector<Run> runs_;  // rising, apart from each other
};

}  // namespace relay::state
