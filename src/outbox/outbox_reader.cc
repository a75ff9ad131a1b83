#include "outbox/outbox_reader.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <utility>

namespace relay::outbox {

using postgres::Connection;
using postgres::Lease;
using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kStatementTimeout{60};
constexpr std::chrono::seconds kBorrowTimeout{30};
constexpr std::chrono::seconds kAbandonTimeout{5};
// Without any announcement the outbox itself is asked this often.
constexpr milliseconds kProbeEvery{1000};
constexpr milliseconds kShortestPause{1};
constexpr milliseconds kLongestPause{10};
// A writer that is open longer is looked at by name.
constexpr milliseconds kShowWriterAfter{100};
constexpr milliseconds kShowWriterEvery{500};
// Rows that are left unread are cheaper to take than to cancel up to here.
constexpr std::size_t kDrainBytes = 256u << 10;
constexpr std::int64_t kPageAfterClaim = 8;
constexpr std::int64_t kMostCounted = 100000;
constexpr std::int64_t kFarFromTail = 100;
constexpr std::int64_t kNoEnd = INT64_MAX;

Result<void> start_rows(Connection& connection, const RowDecoder& decoder, std::int64_t beyond,
                        std::int64_t to, std::int64_t rows) {
  const std::array<postgres::Param, 3> params = {std::to_string(beyond), std::to_string(to),
                                                 std::to_string(rows)};
  return connection.start(decoder.rows_sql(), params, Connection::Format::binary);
}

}  // namespace

OutboxReader::OutboxReader(postgres::Pool& pool, std::shared_ptr<Wake> wake, OutboxInfo outbox,
                           PositionKey key, const OutboxOptions& options, Position start)
    : pool_(pool),
      wake_(std::move(wake)),
      outbox_(std::move(outbox)),
      key_(std::move(key)),
      delta_max_rows_(options.delta_max_rows),
      max_record_bytes_(options.max_record_bytes),
      decoder_(outbox_, options.max_record_bytes),
      horizon_(start.id),
      last_(std::move(start)),
      resume_row_(last_.row),
      pokes_(wake_->pokes()),
      verified_losses_(pool.lost_sessions()) {
  pool_.add_keeper(this);
}

OutboxReader::~OutboxReader() {
  pool_.remove_keeper(this);
  give_back({});
}

// ---- the statement that is sent ahead

/// Called by whoever needs a connection, too.
void OutboxReader::give_back(milliseconds unused) {
  std::optional<Ahead> ahead;
  {
    const std::lock_guard lock(ahead_mutex_);
    if (!ahead_ || SteadyClock::now() - ahead_->since < unused) return;
    ahead = std::move(ahead_);
    ahead_.reset();
  }
  ahead->lease->abandon(Deadline::after(kAbandonTimeout));
}

std::optional<OutboxReader::Ahead> OutboxReader::take_ahead() {
  const std::lock_guard lock(ahead_mutex_);
  std::optional<Ahead> ahead = std::move(ahead_);
  ahead_.reset();
  return ahead;
}

Result<void> OutboxReader::send_ahead(Lease lease, const ReadLimits& limits) {
  if (pool_.contended()) return {};
  const std::int64_t rows = page_size(limits);
  if (auto sent = send_page(*lease, rows); !sent) return sent;
  {
    const std::lock_guard lock(ahead_mutex_);
    ahead_ = Ahead{std::move(lease), rows, SteadyClock::now()};
  }
  // Somebody may have begun to wait before there was anything to ask us for.
  if (pool_.contended()) give_back({});
  return {};
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
    if (error->code == "outbox_rewound") error->error_class = ErrorClass::fenced;
    return fail(std::move(*error));
  }
  if (!last_.mark.empty() && !facts->mark && facts->purged_below < last_.id) {
    return fail(ErrorClass::fenced, "outbox_rewound",
                fmt::format("row {} of outbox {}, which was read, is no longer there", last_.id,
                            outbox_.table));
  }
  horizon_ = Horizon(claim_ ? claim_->outbox_id() : last_.id);
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
  give_back({});
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
  {
    const std::lock_guard lock(status_mutex_);
    status_.sequence = seen->sequence;
  }
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
    if (!at_once && !pause(pause_time, stop)) return false;
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
  const std::lock_guard lock(status_mutex_);
  status_.oldest_open_writer_pid = oldest->pid;
  status_.oldest_open_writer_seconds =
      hidden ? std::chrono::duration<double>(now - blocked_since_).count() : oldest->seconds;
  return {};
}

std::int64_t OutboxReader::page_size(const ReadLimits& limits) const {
  const std::size_t fitting = limits.bytes / std::max<std::size_t>(mean_row_bytes_, 1) + 1;
  auto rows = static_cast<std::int64_t>(std::clamp<std::size_t>(limits.records, 1, fitting));
  if (page_rows_ > 0) rows = std::min(rows, page_rows_);
  return std::max<std::int64_t>(rows, 1);
}

Result<void> OutboxReader::send_page(Connection& connection, std::int64_t rows) {
  horizon_.begin_read();
  return start_rows(connection, decoder_, horizon_.frontier(), kNoEnd, rows);
}

Result<RecordBatch> OutboxReader::fetch_page(const ReadLimits& limits, std::stop_token stop) {
  Lease lease;
  Page page;
  if (auto ahead = take_ahead()) {
    lease = std::move(ahead->lease);
    page.asked = ahead->rows;
  } else {
    auto borrowed = borrow(stop);
    if (!borrowed) return fail(borrowed.error());
    lease = std::move(*borrowed);
    page.asked = page_size(limits);
    if (auto sent = send_page(*lease, page.asked); !sent) return fail(sent.error());
  }
  page.passed_from = horizon_.frontier();
  RecordBatch batch = new_batch();
  if (auto taken = take_rows(*lease, limits, page, batch, stop); !taken) return fail(taken.error());
  conclude(page);
  if (page.gap_passed) {
    // What is not there may be what retention deleted: that is never passed in silence.
    const auto facts =
        look_at_position(*lease, outbox_, key_, last_, Deadline::after(kStatementTimeout), stop);
    if (!facts) return fail(facts.error());
    if (facts->lost_rows > 0 && facts->purged_below > page.passed_from) {
      return fail(*judge_position(last_, *facts, outbox_.table, key_.pipeline));
    }
  }
  const bool more = !page.cut && page.stopped_at == 0 && page.rows == page.asked;
  if (more) {
    if (auto sent = send_ahead(std::move(lease), limits); !sent) return fail(sent.error());
  }
  return batch;
}

Result<void> OutboxReader::take_rows(Connection& connection, const ReadLimits& limits, Page& page,
                                     RecordBatch& batch, std::stop_token stop) {
  batch.records.reserve(static_cast<std::size_t>(page.asked));
  while (true) {
    // Each row has the whole time: a slow link is no error.
    auto next = connection.next_row(Deadline::after(kStatementTimeout), stop);
    if (!next) return fail(next.error());
    if (!*next) return {};
    auto row = decoder_.decode_row(next->get(), batch.arena);
    if (!row) return fail(row.error());
    ++page.rows;
    if (!take_row(*row, limits, page, batch)) {
      leave(connection, page);
      return {};
    }
  }
}

/// False: the statement's further rows are left.
bool OutboxReader::take_row(OutboxRow& row, const ReadLimits& limits, Page& page,
                            RecordBatch& batch) {
  const std::int64_t id = row.record.outbox_id;
  const std::int64_t before = horizon_.frontier();
  if (!horizon_.pass(id)) {
    page.stopped_at = id;
    return false;
  }
  page.gap_passed = page.gap_passed || id != before + 1;
  if (row.claim_check) {
    const std::int64_t settled_id = batch.empty() ? last_.id : batch.records.back().id;
    const bool resumed = resume_row_ > 0 && row.record.pgt_id == last_.mark;
    claim_ = std::make_unique<ClaimCheck>(row, settled_id, resumed ? resume_row_ : 0, outbox_,
                                          delta_max_rows_, max_record_bytes_);
    resume_row_ = 0;
    page.cut = true;
    return false;
  }
  resume_row_ = 0;
  page.bytes += row.bytes;
  batch.records.push_back(std::move(row.record));
  page.cut = page.bytes >= limits.bytes;
  return !page.cut;
}

/// Gets rid of the rows that are still to come.
void OutboxReader::leave(Connection& connection, const Page& page) {
  const auto left = static_cast<std::size_t>(page.asked - page.rows);
  const std::size_t mean = page.bytes / static_cast<std::size_t>(page.rows) + mean_row_bytes_;
  if (left * mean > kDrainBytes) {
    connection.abandon(Deadline::after(kAbandonTimeout));
    return;
  }
  while (true) {
    const auto next = connection.next_row(Deadline::after(kStatementTimeout), {});
    if (!next || !*next) return;
  }
}

/// What a page says about what to do next.
void OutboxReader::conclude(Page& page) {
  if (page.rows > 0 && page.bytes > 0) {
    mean_row_bytes_ = (mean_row_bytes_ + page.bytes / static_cast<std::size_t>(page.rows)) / 2 + 1;
  }
  // Behind claim checks few rows are asked for, more and more while none comes.
  if (claim_) {
    page_rows_ = kPageAfterClaim;
  } else if (page_rows_ > 0 && page.rows == page.asked) {
    page_rows_ = page_rows_ > kMostCounted ? 0 : page_rows_ * 4;
  }
  const bool to_the_end = !page.cut && page.stopped_at == 0 && page.rows < page.asked;
  const std::int64_t last_row = horizon_.frontier();
  if (to_the_end) horizon_.end_read();
  const std::int64_t frontier = horizon_.frontier();
  page.gap_passed = page.gap_passed || frontier != last_row;
  sequence_seen_ = std::max(sequence_seen_, frontier);
  const bool was_blocked = blocked_;
  behind_ = page.stopped_at;
  blocked_ = page.stopped_at != 0 || (to_the_end && known() > frontier);
  fetch_now_ = !blocked_ && !to_the_end;
  next_probe_ = SteadyClock::now() + kProbeEvery;
  if (blocked_ && (!was_blocked || frontier > page.passed_from)) {
    rounds_ = 0;
    blocked_since_ = SteadyClock::now();
  }
  const std::lock_guard lock(status_mutex_);
  status_.sequence = known();
  if (!blocked_) {
    status_.oldest_open_writer_pid = 0;
    status_.oldest_open_writer_seconds = 0;
  }
}

Result<RecordBatch> OutboxReader::read_claim(const ReadLimits& limits, std::stop_token stop) {
  auto lease = borrow(stop);
  if (!lease) return fail(lease.error());
  RecordBatch batch = new_batch();
  const auto finished = claim_->read(**lease, decoder_, limits, batch, stop);
  if (!finished) return fail(finished.error());
  if (*finished) claim_.reset();
  return batch;
}

RecordBatch OutboxReader::new_batch() const {
  RecordBatch batch;
  batch.shape = outbox_.shape;
  return batch;
}

void OutboxReader::note_handed_out(const RecordBatch& batch) {
  if (batch.empty()) return;
  const Record& record = batch.records.back();
  last_ = Position{record.id, record.row, std::string(record.mark)};
}

bool OutboxReader::pause(milliseconds time, std::stop_token stop) const {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

// ---- beside the normal reading

Result<RecordBatch> OutboxReader::read_range(Range& range, const ReadLimits& limits,
                                             std::stop_token stop) {
  const std::int64_t done = range.claim ? range.claim->outbox_id() - 1 : range.done;
  RecordBatch batch = new_batch();
  auto lease = borrow(stop);
  if (!lease) return fail(lease.error());
  while (batch.empty()) {
    const auto more = range.claim ? range_claim(range, **lease, limits, batch, stop)
                                  : range_page(range, **lease, limits, batch, stop);
    if (!more) {
      // What was not handed out is read again, a claim check from its beginning.
      range.claim.reset();
      range.done = done;
      return fail(more.error());
    }
    if (!*more) break;
  }
  return batch;
}

Result<bool> OutboxReader::range_claim(Range& range, Connection& connection,
                                       const ReadLimits& limits, RecordBatch& batch,
                                       std::stop_token stop) {
  const auto finished = range.claim->read(connection, decoder_, limits, batch, std::move(stop));
  if (!finished) return fail(finished.error());
  if (*finished) range.claim.reset();
  return true;
}

/// False: the range has no more rows.
Result<bool> OutboxReader::range_page(Range& range, Connection& connection,
                                      const ReadLimits& limits, RecordBatch& batch,
                                      std::stop_token stop) {
  // Beyond the frontier rows are still to be read for the first time.
  const std::int64_t to = std::min(range.to, horizon_.frontier());
  if (range.done >= to) return false;
  Page page;
  page.asked = page_size(limits);
  auto sent = start_rows(connection, decoder_, range.done, to, page.asked);
  if (!sent) return fail(sent.error());
  while (true) {
    auto next = connection.next_row(Deadline::after(kStatementTimeout), stop);
    if (!next) return fail(next.error());
    if (!*next) return page.rows > 0;
    auto row = decoder_.decode_row(next->get(), batch.arena);
    if (!row) return fail(row.error());
    ++page.rows;
    page.bytes += row->bytes;
    range.done = row->record.outbox_id;
    if (row->claim_check) {
      range.claim = std::make_unique<ClaimCheck>(*row, range.done - 1, 0, outbox_, delta_max_rows_,
                                                 max_record_bytes_);
    } else {
      batch.records.push_back(std::move(row->record));
    }
    if (range.claim || page.bytes >= limits.bytes) {
      leave(connection, page);
      return true;
    }
  }
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

OutboxStatus OutboxReader::status() const {
  const std::lock_guard lock(status_mutex_);
  return status_;
}

}  // namespace relay::outbox
