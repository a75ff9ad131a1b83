#include "outbox/outbox_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "core/pause.h"
#include "outbox/payload_decoder.h"

namespace relay::outbox {

using postgres::Connection;
using postgres::Lease;
using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kStatementTimeout{60};
constexpr std::chrono::seconds kBorrowTimeout{30};
constexpr std::chrono::seconds kAbandonTimeout{5};
constexpr milliseconds kShortestPause{1};
constexpr milliseconds kLongestPause{10};
// A writer that is open longer is looked at by name.
constexpr milliseconds kShowWriterAfter{100};
constexpr milliseconds kShowWriterEvery{500};
constexpr std::int64_t kMostCounted = 100000;
constexpr std::int64_t kFarFromTail = 100;

}  // namespace

OutboxReader::OutboxReader(postgres::Pool& pool, std::shared_ptr<Wake> wake, OutboxInfo outbox,
                           state::PositionKey key, const OutboxOptions& options, Position start,
                           state::SkipSet skipped)
    : pool_(pool),
      wake_(std::move(wake)),
      outbox_(std::move(outbox)),
      key_(std::move(key)),
      delta_max_rows_(options.delta_max_rows),
      max_record_bytes_(options.max_record_bytes),
      decoder_(outbox_, options.max_record_bytes),
      horizon_(start.id),
      skipped_(std::move(skipped)),
      last_(std::move(start)),
      resume_row_(last_.row),
      pokes_(wake_->pokes()),
      verified_losses_(pool.lost_sessions()) {
  pool_.add_keeper(this);
}

OutboxReader::~OutboxReader() {
  pool_.remove_keeper(this);
  give_back({}, Deadline::after(kAbandonTimeout));
}

// ---- the statement that is kept while a batch is worked on

/// Called by whoever needs a connection, too.
void OutboxReader::give_back(milliseconds unused, Deadline deadline) {
  std::optional<Statement> kept;
  {
    const std::lock_guard lock(kept_mutex_);
    if (!kept_ || SteadyClock::now() - kept_->since < unused) return;
    kept = std::move(kept_);
    kept_.reset();
  }
  kept->lease->abandon(deadline.earlier(Deadline::after(kAbandonTimeout)));
}

std::optional<OutboxReader::Statement> OutboxReader::take_kept() {
  const std::lock_guard lock(kept_mutex_);
  std::optional<Statement> kept = std::move(kept_);
  kept_.reset();
  return kept;
}

void OutboxReader::keep(Statement statement) {
  {
    const std::lock_guard lock(kept_mutex_);
    kept_ = std::move(statement);
  }
  // Somebody may have begun to wait before there was anything to ask us for.
  if (pool_.contended()) give_back({}, Deadline::after(kAbandonTimeout));
}

// ---- connections, and whether they lead to where they led before

Result<Lease> OutboxReader::borrow(std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return lease;
  const std::uint64_t losses = pool_.lost_sessions();
  if (!verified_ || losses != verified_losses_) {
    if (auto same = verify(**lease, stop); !same) return fail(same.error());
    verified_ = true;
    verified_losses_ = losses;
  }
  return lease;
}

/// After sessions were lost the server may be another one: the last row that was handed out must
/// still be there as it was. Looks that are open are forgotten; nothing else is.
Result<void> OutboxReader::verify(Connection& connection, std::stop_token stop) {
  const auto facts = look_at_position(connection, outbox_, key_, last_,
                                      Deadline::after(kStatementTimeout), std::move(stop));
  if (!facts) return fail(facts.error());
  if (auto error = judge_position(last_, *facts, outbox_.table, key_.pipeline)) {
    // What is under way was read from a history that is no more: nothing of it may be settled.
    if (error->code == kRewound) error->error_class = ErrorClass::fenced;
    return fail(std::move(*error));
  }
  if (!last_.mark.empty() && !facts->mark && facts->purged_below < last_.id) {
    return fail(ErrorClass::fenced, std::string(kRewound),
                fmt::format("row {} of outbox {}, which was read, is no longer there", last_.id,
                            outbox_.table));
  }
  horizon_ = Horizon(claim_ ? claim_->outbox_id() : last_.id);
  skipped_to_ = 0;
  fetch_now_ = true;
  blocked_ = false;
  return {};
}

// ---- reading

std::int64_t OutboxReader::known() const {
  return std::max(wake_->last_value(), sequence_seen_);
}

Result<RecordBatch> OutboxReader::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  auto batch = read_some(limits, deadline, stop);
  if (batch) {
    note_handed_out(*batch);
    return batch;
  }
  // What was not handed out is read again.
  verified_ = false;
  claim_.reset();
  resume_row_ = last_.row;
  give_back({}, Deadline::after(kAbandonTimeout));
  if (batch.error().error_class == ErrorClass::cancelled && stop.stop_requested()) {
    return new_batch();
  }
  return batch;
}

Result<RecordBatch> OutboxReader::read_some(const ReadLimits& limits, Deadline deadline,
                                            std::stop_token stop) {
  while (!stop.stop_requested()) {
    if (claim_) {
      auto batch = read_claim(limits, stop);
      if (!batch || !batch->empty()) return batch;
    } else if (blocked_) {
      const auto ready = wait_for_writers(deadline, stop);
      if (!ready) return fail(ready.error());
      if (!*ready) break;
    } else if (!fetch_now_) {
      Result<void> trouble;
      const bool news = wait_for_news(deadline, stop, trouble);
      if (!trouble) return fail(trouble.error());
      if (!news) break;
    }
    if (!claim_) {
      auto batch = fetch_page(limits, stop);
      if (!batch || !batch->empty()) return batch;
    }
    if (deadline.passed() && !claim_) break;
  }
  return new_batch();
}

/// True: there is reason to read.
bool OutboxReader::wait_for_news(Deadline deadline, std::stop_token stop, Result<void>& trouble) {
  const std::int64_t frontier = horizon_.frontier();
  if (known() > frontier) return true;
  const std::uint64_t pokes = pokes_;
  const std::int64_t last_value =
      wake_->wait_beyond(frontier, pokes_, deadline.earlier(Deadline(next_probe_)), stop);
  if (stop.stop_requested()) return false;
  if (last_value > frontier || pokes != pokes_) return true;
  if (SteadyClock::now() < next_probe_) return false;
  auto lease = borrow(stop);
  if (!lease) {
    trouble = fail(lease.error());
    return false;
  }
  const auto seen = tip(**lease, stop);
  if (!seen) trouble = fail(seen.error());
  return seen && (seen->sequence > frontier || seen->first != 0);
}

Result<Tip> OutboxReader::tip(Connection& connection, std::stop_token stop) {
  const auto seen =
      read_tip(connection, outbox_, horizon_.frontier(), Deadline::after(kStatementTimeout), stop);
  if (!seen) return fail(seen.error());
  next_probe_ = SteadyClock::now() + kProbeEvery;
  sequence_seen_ = seen->sequence;
  // The sequence was set back under us.
  if (seen->sequence < last_.id) {
    if (auto same = verify(connection, std::move(stop)); !same) return fail(same.error());
  }
  return seen;
}

/// Waits for those who drew ids that are not to be seen. True: reading again will bring something
/// forward. False: not before the deadline.
Result<bool> OutboxReader::wait_for_writers(Deadline deadline, std::stop_token stop) {
  while (true) {
    const auto waited = SteadyClock::now() - blocked_since_;
    const auto pause_time = std::clamp(std::chrono::duration_cast<milliseconds>(waited / 8),
                                       kShortestPause, kLongestPause);
    // Far from the tail a gap is old: it is looked at at once.
    const bool at_once = rounds_ == 0 && behind_ != 0 && known() - behind_ >= kFarFromTail;
    if (!at_once && !pause(Deadline::after(pause_time), stop)) return false;
    // Most writers commit within a millisecond of drawing an id.
    if (rounds_++ == 0 && behind_ == 0) return true;
    auto lease = borrow(stop);
    if (!lease) return fail(lease.error());
    if (!blocked_) return true;
    const auto seen = tip(**lease, stop);
    if (!seen) return fail(seen.error());
    behind_ = seen->first;
    const bool filled = behind_ == horizon_.frontier() + 1;
    if (filled) return true;
    if (auto looked = take_look(**lease, seen->sequence, stop); !looked)
      return fail(looked.error());
    if (horizon_.can_advance(behind_)) return true;
    if (behind_ == 0 && seen->sequence <= horizon_.frontier()) {
      blocked_ = false;
      return false;
    }
    if (deadline.passed()) return false;
  }
}

Result<void> OutboxReader::take_look(Connection& connection, std::int64_t sequence,
                                     std::stop_token stop) {
  const Deadline deadline = Deadline::after(kStatementTimeout);
  const auto holders = read_holders(connection, outbox_, deadline, stop);
  if (!holders) return fail(holders.error());
  horizon_.observe(sequence, *holders);
  const auto now = SteadyClock::now();
  if (now - blocked_since_ < kShowWriterAfter || now < next_age_) return {};
  next_age_ = now + kShowWriterEvery;
  auto oldest = read_oldest_writer(connection, outbox_, deadline, std::move(stop));
  if (!oldest) return fail(oldest.error());
  const bool hidden = oldest->seconds < 0;
  if (hidden) oldest->seconds = std::chrono::duration<double>(now - blocked_since_).count();
  const std::lock_guard lock(writer_mutex_);
  writer_ = *oldest;
  return {};
}

RecordBatch OutboxReader::new_batch() const {
  RecordBatch batch;
  batch.shape = outbox_.shape;
  return batch;
}

/// The key columns had other names when the row was recorded than when the outbox was made.
const std::shared_ptr<const TableShape>& OutboxReader::shape_of(const OutboxRow& row) {
  if (row.key_columns.empty()) return outbox_.shape;
  const auto known = shapes_.find(row.key_columns);
  if (known != shapes_.end()) return known->second;
  TableShape shape = *outbox_.shape;
  shape.key_columns.clear();
  if (!read_texts(row.key_columns, shape.key_columns)) shape.key_columns.clear();
  return shapes_.emplace(row.key_columns, std::make_shared<const TableShape>(std::move(shape)))
      .first->second;
}

void OutboxReader::note_handed_out(const RecordBatch& batch) {
  if (batch.empty()) return;
  const Record& record = batch.records.back();
  last_ = Position{record.id, record.row, std::string(record.mark)};
  if (last_.id >= skipped_.last()) skipped_.clear();
}

Result<std::int64_t> OutboxReader::rows_beyond(std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return fail(lease.error());
  const std::string sql = fmt::format(
      "select count(*) from (select from {} o where o.id > $1::bigint limit $2::bigint) r",
      qualified(outbox_.table));
  const auto rows =
      (*lease)->query(sql, {std::to_string(horizon_.frontier()), std::to_string(kMostCounted)},
                      Deadline::after(kStatementTimeout), stop);
  if (!rows) return fail(rows.error());
  return rows->integer(0, 0);
}

OpenWriter OutboxReader::oldest_open_writer() const {
  const std::lock_guard lock(writer_mutex_);
  return writer_;
}

}  // namespace relay::outbox
