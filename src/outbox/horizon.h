#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace relay::outbox {

/// A transaction that holds the locks which an INSERT takes on the outbox and on its sequence
/// before it draws an id.
struct Holder {
  std::string name;       ///< virtual transaction of a session; of a prepared one, its xid
  bool prepared = false;  ///< prepared for two-phase commit: no session holds it
  int pid = 0;            ///< 0: prepared
};

/// How far an outbox has come: the newest id that was drawn, and the first row beyond an id that is
/// visible (0: none).
struct Tip {
  std::int64_t sequence = 0;
  std::int64_t first = 0;
};

/// Decides how far the reading of an outbox may pass, so that no row is ever skipped: ids are drawn
/// in one order and become visible in another. Pure: no I/O, no clock, no thread.
///
/// What it stands on, in PostgreSQL 14 to 18: an INSERT locks its table (ROW EXCLUSIVE), then the
/// sequence (the same; lock_and_open_sequence in commands/sequence.c, for the top transaction),
/// then draws an id, and the locks are released only after the commit is visible to new snapshots
/// (CommitTransaction in access/transam/xact.c: ProcArrayEndTransaction comes before
/// ResourceOwnerRelease of locks; FinishPreparedTransaction in twophase.c: ProcArrayRemove comes
/// before the post-commit callbacks that release locks). So a transaction that drew an id which the
/// sequence shows holds both locks, or its rows are visible to the next statement, or will never
/// be. A deletion (retention) does not lock the sequence, so it is no holder; no transaction that
/// drew an id can look like one that only deletes.
///
/// A run of ids without a gap needs no more than that the rows are there. At a gap, or at the tail,
/// the caller takes a look: reads the sequence, then the holders, in two statements in this order,
/// and says what it saw (`observe`); when all that were there have ended, everything up to that
/// value of the sequence is decided. Several looks may be open at once, so that a gap waits only
/// for those who were there when it was first seen.
class Horizon {
 public:
  explicit Horizon(std::int64_t frontier = 0) : frontier_(frontier), settled_(frontier) {}

  /// Every row up to here was passed; nothing up to here is to come.
  std::int64_t frontier() const { return frontier_; }
  /// Every id up to here is decided: a statement that begins from now on sees its row, or it has
  /// none.
  std::int64_t settled() const { return settled_; }

  /// A statement that reads rows beyond the frontier is about to be sent. What is decided only
  /// later does not count for its rows.
  void begin_read() { settled_at_read_ = settled_; }
  /// The next row of that statement, in order of id. False: something before it may still come; it
  /// and what follows is left for a later statement.
  bool pass(std::int64_t id);
  /// Ids up to here, from the one behind the frontier on, are known to be visible, and need not be
  /// read. Between statements only.
  void jump_to(std::int64_t id);
  /// The statement gave all rows that there were up to an id, and each was passed.
  void end_read(std::int64_t until = INT64_MAX);

  /// A look: the sequence stood at `sequence`, and after that `holders` were there.
  void observe(std::int64_t sequence, std::span<const Holder> holders);
  /// Would a new statement whose first row beyond the frontier is `first` (0: none) advance?
  bool can_advance(std::int64_t first) const;
  /// A look waits for transactions that have not ended.
  bool waiting() const { return !looks_.empty(); }

 private:
  static constexpr std::size_t kMaxLooks = 32;

  struct Look {
    std::int64_t sequence;
    std::set<std::string> sessions;
    std::set<std::string> prepared;
    bool empty() const { return sessions.empty() && prepared.empty(); }
  };
  using Names = std::set<std::string>;
  static void check(Look& look, const Names& sessions, const Names& prepared);
  void close_looks();
  void thin_out();

  std::int64_t frontier_;
  std::int64_t settled_;
  std::int64_t settled_at_read_ = 0;
  std::vector<Look> looks_;  // by rising sequence
};

}  // namespace relay::outbox
