#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/error.h"
#include "envelope/changes.h"
#include "envelope/filter.h"
#include "envelope/json_reader.h"
#include "envelope/refusals.h"

namespace relay::envelope {

/// Applies a pipeline's filter to the rows of one record. It judges each row by itself, so that
/// what is left are the changes of the table "WHERE filter". One thread at a time.
class RowFilter {
 public:
  /// Everything given here outlives the object. No filter: all rows pass.
  RowFilter(const std::optional<Filter>& filter, JsonReader& reader, Refusals& refusals)
      : filter_(filter), reader_(reader), refusals_(refusals) {}

  /// Judges all rows of a record; the verdicts hold until the next call.
  void judge(const Rows& rows);

  /// What the filter leaves of a change: an update of which only the new row passes is an insert,
  /// one of which only the old row passes a delete. Nothing: no row of it passes. A change that has
  /// a refused row stays as it is.
  std::optional<Change> apply(const Change& change) const {
    return filter_ ? judged(change) : change;
  }
  /// Why the filter cannot judge a row of this change; null if it can.
  SharedError refusal(const Change& change) const {
    return refused_.empty() ? nullptr : found_refusal(change);
  }

 private:
  enum class Verdict : std::uint8_t { pass, leave_out, refuse };

  std::optional<Change> judged(const Change& change) const;
  SharedError found_refusal(const Change& change) const;

  const std::optional<Filter>& filter_;
  JsonReader& reader_;
  Refusals& refusals_;
  std::vector<Verdict> verdicts_;  // by row; not used without a filter
  std::map<std::uint32_t, SharedError> refused_;
};

}  // namespace relay::envelope
