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

/// The id for a message whose own id another message has: `<id>~` and 16 hexadecimal digits of
/// SHA-256 over type, key and body. The same message gets the same id each time that it arrives.
std::string id_in_conflict(const Message& message);

/// The row that an inbox has with the id of a message, after the statement to store the message.
struct Found {
  std::string id;        ///< the message's, as the column writes it
  bool found = false;    ///< there is a row with it
  bool same = false;     ///< one with the same event type, key and payload
  bool changes = false;  ///< a BEFORE trigger decides what is stored, and under which id
  bool hides = false;    ///< row security may hide the row
};

/// What happened to a message in a statement that did not store all of its messages.
enum class Fate {
  stored,     ///< by this statement
  duplicate,  ///< the message was there already
  conflict,   ///< another message with its id was there
  unclear,    ///< the row with its id differs, which a BEFORE trigger may have done
  dropped,    ///< a BEFORE trigger dropped it, or stored it under another id
  hidden,     ///< the row with its id cannot be seen
  gone,       ///< the row with its id was there, and is not any longer
};

/// One fate for each message, in order. `written`: the ids that the statement has returned, without
/// those whose messages are left out of `found`. If several messages have one id, the first one was
/// stored, or the one that the row shows if a trigger drops rows. If a trigger changes ids, rows
/// cannot be matched with messages unless none is missing: then a message counts as stored only if
/// its row was found.
std::vector<Fate> fates(std::span<const Found> found, std::unordered_set<std::string_view> written);

/// An id as errors and the log show it: a long one is cut.
std::string shown_id(std::string_view id);

/// Why PostgreSQL accepted a message and did not store it. `table`: qualified and quoted.
Error why_not_stored(Fate fate, const Message& message, const std::string& table);

/// Limits the reports of id conflicts to one a minute. Pure: the caller gives the time.
class ConflictReports {
 public:
  static constexpr std::chrono::minutes kPause{1};
  /// Counts a conflict. Returns how many there were since the last report, this one included, if it
  /// is to be reported now; else 0.
  std::size_t note(SteadyClock::time_point now);

 private:
  SteadyClock::time_point told_{};
  bool any_told_ = false;
  std::size_t since_ = 0;
};

}  // namespace relay::pg_inbox
