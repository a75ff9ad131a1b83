#include "backends/pg_inbox/id_conflict.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "core/digest.h"

namespace relay::pg_inbox {

namespace {

Fate fate_without_row(const Found& one) {
  if (one.changes) return Fate::dropped;
  return one.hides ? Fate::hidden : Fate::gone;
}

}  // namespace

std::string id_in_conflict(const Message& message) {
  // Lengths precede the parts, so that different parts never make the same text.
  const std::string head =
      fmt::format("{}:{}{}:{}1:{}{}:", message.op.size(), message.op, message.key.size(),
                  message.key, message.tombstone ? "-" : "+", message.body.size());
  const std::array<std::string_view, 2> parts = {head, message.body};
  constexpr std::size_t kBytes = 8;
  return fmt::format("{}~{}", message.id, hex(bytes_of(sha256(parts)).substr(0, kBytes)));
}

std::vector<Fate> fates(std::span<const Found> found,
                        std::unordered_set<std::string_view> written) {
  std::unordered_map<std::string_view, std::size_t> messages;
  for (const Found& one : found) ++messages[one.id];
  std::vector<Fate> fates;
  fates.reserve(found.size());
  for (const Found& one : found) {
    // A trigger may have dropped the first of several with one id: the row shows which was stored.
    const bool is_its = !one.changes || one.same || messages[one.id] == 1;
    if (is_its && written.erase(one.id) > 0) {
      fates.push_back(Fate::stored);
    } else if (!one.found) {
      fates.push_back(fate_without_row(one));
    } else if (one.same) {
      fates.push_back(Fate::duplicate);
    } else {
      fates.push_back(one.changes ? Fate::unclear : Fate::conflict);
    }
  }
  const auto missing =
      static_cast<std::size_t>(std::count(fates.begin(), fates.end(), Fate::dropped));
  if (missing == 0) return fates;
  for (const Found& one : found) written.erase(one.id);
  const bool all_renamed = written.size() == missing;
  for (std::size_t i = 0; i < fates.size(); ++i) {
    if (all_renamed && fates[i] == Fate::dropped) fates[i] = Fate::stored;
    // A trigger may have given its id to the row of another message, whose own id is missing.
    if (!all_renamed && fates[i] == Fate::stored && !found[i].same) fates[i] = Fate::unclear;
  }
  return fates;
}

std::size_t ConflictReports::note(SteadyClock::time_point now) {
  ++since_;
  if (any_told_ && now - told_ < kPause) return 0;
  any_told_ = true;
  told_ = now;
  return std::exchange(since_, 0);
}

std::string shown_id(std::string_view id) {
  constexpr std::size_t kLongest = 200;
  if (id.size() <= kLongest) return std::string(id);
  return fmt::format("{}...", id.substr(0, kLongest));
}

Error why_not_stored(Fate fate, const Message& message, const std::string& table) {
  Error error{ErrorClass::rejected, "id_conflict", {}, {}, {}};
  const std::string id = shown_id(message.id);
  if (fate == Fate::dropped) {
    error.code = "row_dropped";
    error.message = fmt::format(
        "a BEFORE trigger of table {} dropped the row with the id {}, or stored it under another "
        "id",
        table, id);
    error.remedy = "let the trigger return the row, with its id; then `pgtrickle-relay dlq retry`";
  } else if (fate == Fate::gone) {
    error = {ErrorClass::transient,
             "row_gone",
             fmt::format("the row of table {} that had the id {} was deleted meanwhile", table, id),
             {},
             {}};
  } else if (fate == Fate::hidden) {
    error.message = fmt::format(
        "table {} has the id {} already, in a row that row security hides from the relay", table,
        id);
    error.remedy =
        "let a policy show all rows to the relay's role; then `pgtrickle-relay dlq "
        "retry`";
  } else {
    error.message = fmt::format(
        "table {} has the id {} already, in a row with another payload, key or type", table, id);
    error.remedy = "give each message an id of its own (id_from, id_prefix of the source)";
    if (fate == Fate::unclear) {
      error.message += ", which a trigger may have changed";
      error.remedy += "; where a trigger changes rows, set on_id_conflict = \"ignore\"";
    }
  }
  return error;
}

}  // namespace relay::pg_inbox
