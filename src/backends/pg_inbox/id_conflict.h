#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "core/message.h"

namespace relay::pg_inbox {

/// The id under which a message is stored whose own id another message has: the same each time that
/// it arrives. `<id>~` and 16 hexadecimal digits of SHA-256 over type, key and body.
std::string id_in_conflict(const Message& message);

/// What an inbox has under the id of a message, after the statement that should have stored it.
struct Found {
  std::string id;        ///< the message's, as the column writes it
  bool found = false;    ///< there is a row with it
  bool same = false;     ///< one with the same event type, key and payload
  bool changes = false;  ///< a BEFORE trigger decides what is stored, and under which id
  bool hides = false;    ///< row security may hide the row
};

/// What became of a message in a statement that has not stored all of them.
enum class Fate {
  stored,     ///< by this statement
  duplicate,  ///< it was there
  conflict,   ///< another message with its id was there
  unclear,    ///< the row with its id differs, which a BEFORE trigger may have done
  dropped,    ///< a BEFORE trigger dropped it, or stored it under another id
  hidden,     ///< the row with its id cannot be seen
  gone,       ///< the row with its id was there, and is not any longer
};

/// One fate a message, in their order. `written`: the ids that the statement has returned, without
/// those whose messages are left out of `found`. Of messages with one id it is the first that was
/// stored, or where a trigger drops rows the one that the row shows. Where a trigger gives rows
/// other ids, it is not known which rows are whose, unless none is missing: then nothing counts as
/// stored that is not seen.
std::vector<Fate> fates(std::span<const Found> found, std::unordered_set<std::string_view> written);

/// An id as errors and the log show it: a long one is cut.
std::string shown_id(std::string_view id);

/// Why a message is not stored that PostgreSQL did not refuse. `table`: qualified and quoted.
Error why_not_stored(Fate fate, const Message& message, const std::string& table);

/// Tells that ids are in conflict, at most once a minute. No clock of its own.
class ConflictReports {
 public:
  static constexpr std::chrono::minutes kPause{1};
  /// One more conflict. How many there were since the last one that was told, this one included,
  /// where it is to be told; else 0.
  std::size_t note(SteadyClock::time_point now);

 private:
  SteadyClock::time_point told_{};
  bool any_told_ = false;
  std::size_t since_ = 0;
};

}  // namespace relay::pg_inbox
