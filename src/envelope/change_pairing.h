#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "envelope/changes.h"
#include "envelope/json_reader.h"

namespace relay::envelope {

/// Finds out what the rows of a record mean as changes. Results hold until the next call. Pure. One
/// thread at a time.
class ChangePairing {
 public:
  /// The changes of a delta, in the order of their first rows: `rows` holds `deleted` deleted rows,
  /// then the inserted ones. A deleted and an inserted row with the same key are an update.
  /// `refresh`: all of them are rows of a new state, and none are paired.
  std::span<const Change> of_delta(const Rows& rows, std::size_t deleted, bool refresh,
                                   std::span<const std::string> key_columns);
  /// One change as a source reports it. An update that changes the key is a delete of the old row
  /// and an insert of the new one (`moved`). A change without a row gives nothing.
  std::span<const Change> of_row_change(const Rows& rows, const Change& change,
                                        std::span<const std::string> key_columns);
  /// Whether each row of a delta is half of an update.
  bool all_updates(const Rows& rows, std::size_t deleted, std::span<const std::string> key_columns);

 private:
  bool changes_key(const Rows& rows, const Change& change,
                   std::span<const std::string> key_columns);

  KeyMatcher matcher_;
  std::vector<std::uint32_t> partner_;
  std::vector<Change> changes_;
};

}  // namespace relay::envelope
