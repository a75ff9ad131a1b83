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
// A statement brings several batches: planning it takes as long as reading fifty rows.
constexpr std::size_t kBatchesAStatement = 8;
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

/// Sends a statement, for several batches where nobody else needs the connection.
Result<OutboxReader::Statement> OutboxReader::send(Lease lease, const ReadLimits& limits) {
  ReadLimits asked = limits;
  if (!pool_.contended()) {
    asked.records *= kBatchesAStatement;
    asked.bytes *= kBatchesAStatement;
  }
  const std::int64_t rows = page_size(asked);
  jump();
  horizon_.begin_read();
  auto sent = start_rows(*lease, decoder_, horizon_.frontier(), kNoEnd, rows);
  if (!sent) return fail(sent.error());
  return Statement{std::move(lease), rows, SteadyClock::now()};
}

/// Rows that are skipped are not read where they come next.
void OutboxReader::jump() {
  const std::int64_t end = skipped_.run_end(horizon_.frontier() + 1);
  if (end == 0) return;
  horizon_.jump_to(end);
  skipped_to_ = end;
}

/// The statement that is under way, or a new one.
Result<OutboxReader::Statement> OutboxReader::under_way(const ReadLimits& limits,
                                                        std::stop_token stop) {
  if (auto kept = take_kept()) return std::move(*kept);
  auto lease = borrow(std::move(stop));
  if (!lease) return fail(lease.error());
  return send(std::move(*lease), limits);
}

Result<RecordBatch> OutboxReader::fetch_page(const ReadLimits& limits, std::stop_token stop) {
  auto statement = under_way(limits, stop);
  if (!statement) return fail(statement.error());
  Connection& connection = *statement->lease;
  Page page;
  page.asked = statement->rows;
  page.passed_from = horizon_.frontier();
  RecordBatch batch = new_batch();
  if (auto taken = take_rows(connection, limits, page, batch, stop); !taken) {
    return fail(taken.error());
  }
  conclude(page);
  const bool at_end = page.rows == page.asked;
  if (page.gap_passed) {
    if (page.full) leave(connection, page);
    // Gaps come together: while they do, a statement is for one batch.
    const auto one_batch = static_cast<std::int64_t>(limits.records);
    page_rows_ = page_rows_ > 0 ? std::min(page_rows_, one_batch) : one_batch;
    if (auto none = look_for_lost_rows(connection, page, stop); !none) return fail(none.error());
  } else if (page.full) {
    statement->rows -= page.rows;
    keep(std::move(*statement));
    return batch;
  }
  const bool more = !page.cut && page.stopped_at == 0 && (at_end || page.full);
  if (more && !pool_.contended()) {
    auto next = send(std::move(statement->lease), limits);
    if (!next) return fail(next.error());
    keep(std::move(*next));
  }
  return batch;
}

/// What is not there may be what retention deleted: that is never passed in silence.
Result<void> OutboxReader::look_for_lost_rows(Connection& connection, const Page& page,
                                              std::stop_token stop) {
  const auto facts = look_at_position(connection, outbox_, key_, last_,
                                      Deadline::after(kStatementTimeout), std::move(stop));
  if (!facts) return fail(facts.error());
  if (facts->lost_rows > 0 && facts->purged_below > page.passed_from) {
    return fail(*judge_position(last_, *facts, outbox_.table, key_.pipeline));
  }
  return {};
}

Result<void> OutboxReader::take_rows(Connection& connection, const ReadLimits& limits, Page& page,
                                     RecordBatch& batch, std::stop_token stop) {
  batch.records.reserve(std::min(limits.records, static_cast<std::size_t>(page.asked)));
  while (true) {
    // Each row has the whole time: a slow link is no error.
    auto next = connection.next_row(kStatementTimeout, stop);
    if (!next) return fail(next.error());
    if (!*next) return {};
    auto row = decoder_.decode_row(next->get(), batch.arena);
    if (!row) return fail(row.error());
    ++page.rows;
    if (!take_row(*row, page, batch)) {
      leave(connection, page);
      return {};
    }
    const bool enough = batch.records.size() >= limits.records || page.bytes >= limits.bytes;
    page.full = enough && page.rows < page.asked;
    if (page.full) return {};
  }
}

/// False: the statement's further rows are left.
bool OutboxReader::take_row(OutboxRow& row, Page& page, RecordBatch& batch) {
  const std::int64_t id = row.record.outbox_id;
  const std::int64_t before = horizon_.frontier();
  const auto& shape = shape_of(row);
  if (shape != batch.shape && !batch.empty()) {
    page.cut = true;  // the next batch begins with it
    return false;
  }
  if (!horizon_.pass(id)) {
    page.stopped_at = id;
    return false;
  }
  page.gap_passed = page.gap_passed || id != before + 1;
  if (skipped_.contains(id)) {
    page.bytes += row.bytes;  // held until the page ends
    skipped_to_ = id;
    return true;
  }
  if (row.claim_check) {
    const std::int64_t settled_id =
        std::max(batch.empty() ? last_.id : batch.records.back().id, skipped_to_);
    const bool resumed = resume_row_ > 0 && row.record.pgt_id == last_.mark;
    claim_ = std::make_unique<ClaimCheck>(row, settled_id, resumed ? resume_row_ : 0, shape,
                                          delta_max_rows_, max_record_bytes_);
    resume_row_ = 0;
    page.cut = true;
    return false;
  }
  resume_row_ = 0;
  page.bytes += row.bytes;
  batch.shape = shape;
  batch.records.push_back(std::move(row.record));
  return true;
}

/// Gets rid of the rows that are still to come.
void OutboxReader::leave(Connection& connection, const Page& page) {
  const std::int64_t asked = page.asked - page.rows;
  const std::int64_t drawn = known() - horizon_.frontier();
  const auto left = static_cast<std::size_t>(drawn > 0 ? std::min(asked, drawn) : asked);
  const std::size_t mean = page.bytes / static_cast<std::size_t>(page.rows) + mean_row_bytes_;
  // More may have been drawn than is known.
  const std::size_t most = kDrainBytes / mean;
  for (std::size_t taken = 0; left <= most && taken <= most; ++taken) {
    const auto next = connection.next_row(kStatementTimeout, {});
    if (!next || !*next) return;
  }
  connection.abandon(Deadline::after(kAbandonTimeout));
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
  const bool to_the_end = !page.full && !page.cut && page.stopped_at == 0 && page.rows < page.asked;
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
  const std::lock_guard lock(writer_mutex_);
  if (!blocked_) writer_ = {};
}

Result<RecordBatch> OutboxReader::read_claim(const ReadLimits& limits, std::stop_token stop) {
  auto lease = borrow(stop);
  if (!lease) return fail(lease.error());
  RecordBatch batch = new_batch();
  batch.shape = claim_->shape();
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
  batch.shape = range.claim->shape();
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
    const auto& shape = shape_of(*row);
    if (shape != batch.shape && !batch.empty()) {
      leave(connection, page);
      return true;
    }
    range.done = row->record.outbox_id;
    if (row->claim_check) {
      range.claim = std::make_unique<ClaimCheck>(*row, range.done - 1, 0, shape, delta_max_rows_,
                                                 max_record_bytes_);
    } else {
      batch.shape = shape;
      batch.records.push_back(std::move(row->record));
    }
    if (range.claim || page.bytes >= limits.bytes) {
      leave(connection, page);
      return true;
    }
  }
}

}  // namespace relay::outbox
