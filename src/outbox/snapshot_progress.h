#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>

namespace relay::outbox {

/// Which changes are delivered: all up to `id`, and those in `skipped` beyond it. The marks are
/// the pgt_ids of the rows at `id` and at the end of `skipped`; empty where there is none.
struct SnapshotMoment {
  std::int64_t id = 0;
  std::string mark;
  std::string skipped;  ///< an int8multirange; empty: none
  std::string skipped_mark;
};

/// How far the rows are delivered that a table has, in order of their keys. Keys are JSON objects
/// as the server writes them; empty: none.
struct SnapshotState {
  SnapshotMoment moment;
  std::string after;  ///< the rows up to this key are delivered
  std::string ahead;  ///< they may have been handed out up to this one
  bool all = false;   ///< rows behind that may be at the consumer as well
  bool done = false;
  std::int64_t rows = 0;
};

/// Decides what a snapshot delivers next, and what is stored of it. What was delivered is always
/// the table of the last moment, as far as its pages go: a change whose key is in no page that was
/// handed out is left to the page to come. Pure. One thread at a time.
class SnapshotProgress {
 public:
  explicit SnapshotProgress(SnapshotState state) : now_(std::move(state)) {}

  /// How far what was handed out goes.
  const SnapshotState& now() const { return now_; }
  /// Of the changes of the next step, those up to this key are delivered; empty: none, unless
  /// `now().all`.
  const std::string& bound() const { return now_.ahead; }
  /// The next page has the rows behind now().after and up to here; empty: there is no limit.
  const std::string& until() const { return now_.ahead == now_.after ? kNoKey : now_.ahead; }

  struct Page {
    std::string last_key;  ///< empty: it has no rows
    std::int64_t rows = 0;
    bool is_last = false;  ///< there are no rows behind it, up to `until`
  };
  /// The key that must be stored before the page may be handed out; empty: none.
  std::string to_store_ahead(const Page& page) const {
    return until().empty() ? page.last_key : std::string();
  }

  /// The changes up to this moment were taken.
  void take_changes(SnapshotMoment moment) { now_.moment = std::move(moment); }
  /// The page of that moment was taken.
  void take_page(const Page& page);

  /// Number of a step whose records are handed out now: once they are settled, now() is.
  std::int64_t hand_out();
  std::int64_t last_step() const { return steps_; }
  /// What is to be stored when everything up to this step is settled; nothing where that is.
  std::optional<SnapshotState> settled(std::int64_t step) const;
  /// It is stored.
  void stored(std::int64_t step);
  bool is_settled() const { return handed_out_.empty(); }

 private:
  static const std::string kNoKey;

  SnapshotState now_;
  std::int64_t steps_ = 0;
  std::deque<std::pair<std::int64_t, SnapshotState>> handed_out_;  // by step
};

}  // namespace relay::outbox
