// The pages of OutboxReader: rows of one statement, and what they say about what to do next.
#include <algorithm>
#include <array>
#include <utility>

#include "outbox/outbox_reader.h"

namespace relay::outbox {

using postgres::Connection;
using postgres::Lease;
using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kStatementTimeout{60};
constexpr std::chrono::seconds kAbandonTimeout{5};
// Rows that are left unread are cheaper to take than to cancel up to here.
constexpr std::size_t kDrainBytes = 256u << 10;
constexpr std::int64_t kPageAfterClaim = 8;
constexpr std::int64_t kLargestStart = 100000;
constexpr std::int64_t kNoEnd = INT64_MAX;

Result<void> start_rows(Connection& connection, const RowDecoder& decoder, std::int64_t beyond,
                        std::int64_t to, std::int64_t rows) {
  const std::array<postgres::Param, 3> params = {std::to_string(beyond), std::to_string(to),
                                                 std::to_string(rows)};
  return connection.start(decoder.rows_sql(), params, Connection::Format::binary);
}

}  // namespace

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
    auto next = connection.next_row(kStatementTimeout, stop);
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
    const auto next = connection.next_row(kStatementTimeout, {});
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
    page_rows_ = page_rows_ > kLargestStart ? 0 : page_rows_ * 4;
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
    auto next = connection.next_row(kStatementTimeout, stop);
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

}  // namespace relay::outbox
