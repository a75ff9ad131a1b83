#include "outbox/outbox_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/pause.h"
#include "outbox/look.h"
#include "outbox/outbox_position.h"

namespace relay::outbox {

using postgres::Connection;
using postgres::Lease;

namespace {

constexpr std::chrono::seconds kStatementTimeout{60};
constexpr std::chrono::seconds kBorrowTimeout{30};
constexpr std::int64_t kMostCounted = 100000;
// A statement brings several batches: planning it takes as long as reading fifty rows.
constexpr std::size_t kBatchesAStatement = 8;
constexpr std::int64_t kNoEnd = INT64_MAX;
// A step in an adopted outbox costs a millisecond. Where its filter wants nothing of what others
// write, steps are this far apart.
constexpr int kFruitlessPages = 6;
constexpr std::chrono::milliseconds kFruitlessPause{20};

}  // namespace

OutboxReader::OutboxReader(postgres::Pool& pool, std::shared_ptr<Wake> wake, OutboxInfo outbox,
                           const OutboxOptions& options, StartingPosition start,
                           OutboxStatus& status)
    : pool_(pool),
      wake_(std::move(wake)),
      outbox_(std::move(outbox)),
      key_{options.group, options.pipeline},
      claim_limits_{options.delta_max_rows, options.max_record_bytes},
      status_(status),
      decoder_(outbox_, options.max_record_bytes),
      policy_(start.read.frontier, std::move(start.ownership.skipped)),
      kept_(pool, outbox_.code()),
      read_(std::move(start.read)),
      resume_row_(read_.last.row),
      pokes_(wake_->pokes()),
      verified_losses_(pool.lost_sessions()),
      losses_(*verified_losses_) {}

// ---- connections, and whether they lead to where they led before

Result<Lease> OutboxReader::borrow(std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop, outbox_.code());
  if (!lease) return lease;
  const std::uint64_t losses = pool_.lost_sessions();
  if (verified_losses_ != losses) {
    if (auto same = verify(**lease, std::move(stop)); !same) return fail(same.error());
    verified_losses_ = losses;
  }
  return lease;
}

/// After sessions were lost the server may be another one: the last row that was handed out must
/// still be there as it was. What was seen of writers is forgotten; nothing else is.
Result<void> OutboxReader::verify(Connection& connection, std::stop_token stop) {
  // A server that was restored, or has crashed, may draw ids again that have no row.
  if (pool_.lost_sessions() != losses_) read_.frontier = read_.last.id;
  losses_ = pool_.lost_sessions();
  const ReadingStep step(status_, outbox_.adopted);
  const auto facts = look_at_position(connection, outbox_, key_, read_,
                                      Deadline::after(kStatementTimeout), std::move(stop));
  if (!facts) return fail(facts.error());
  if (auto error = judge_position(read_.last, *facts, outbox_, key_.pipeline)) {
    // What is under way was read from a history that is no more: nothing of it may be settled.
    if (error->code == kRewound) error->error_class = ErrorClass::fenced;
    return fail(std::move(*error));
  }
  // Of an adopted table the application may have deleted it.
  if (!outbox_.adopted && !read_.last.mark.empty() && !facts->mark &&
      facts->purged_below < read_.last.id) {
    return fail(ErrorClass::fenced, std::string(kRewound),
                fmt::format("row {} of outbox {}, which was read, is no longer there",
                            read_.last.id, outbox_.table));
  }
  read_.frontier = std::max(facts->passed, read_.last.id);
  read_.history = facts->history;
  policy_.restart(claim_ ? claim_->outbox_id() : read_.frontier);
  return {};
}

// ---- reading

Result<RecordBatch> OutboxReader::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  auto batch = read_some(limits, deadline, stop);
  if (batch) {
    note_handed_out(*batch);
    read_.frontier = verified_losses_ ? policy_.frontier() : read_.last.id;
    return batch;
  }
  // What was not handed out is read again.
  verified_losses_.reset();
  claim_.reset();
  resume_row_ = read_.last.row;
  kept_.drop();
  if (batch.error().error_class == ErrorClass::cancelled && stop.stop_requested()) {
    return RecordBatch();
  }
  return batch;
}

Result<RecordBatch> OutboxReader::read_some(const ReadLimits& limits, Deadline deadline,
                                            std::stop_token stop) {
  while (!stop.stop_requested()) {
    if (claim_) {
      auto batch = read_claim(limits, stop);
      if (!batch || !batch->empty()) return batch;
    } else {
      const auto ready = wait(deadline, stop);
      if (!ready) return fail(ready.error());
      if (!*ready) break;
    }
    if (!claim_) {
      auto batch = read_page(limits, stop);
      if (!batch || !batch->empty()) return batch;
    }
    if (deadline.passed() && !claim_) break;
  }
  return RecordBatch();
}

/// True: there is reason to fetch. False: not before the deadline, or a stop was asked for.
Result<bool> OutboxReader::wait(Deadline deadline, std::stop_token stop) {
  if (policy_.next() == ReadPolicy::Step::fetch) return true;
  if (!pause_where_fruitless(stop)) return false;
  switch (policy_.next()) {
    case ReadPolicy::Step::fetch:
      return true;
    case ReadPolicy::Step::wait_for_news:
      return wait_for_news(deadline, std::move(stop));
    case ReadPolicy::Step::wait_for_writers:
      return wait_for_writers(deadline, std::move(stop));
  }
  return true;
}

Result<bool> OutboxReader::wait_for_news(Deadline deadline, std::stop_token stop) {
  if (policy_.expects_rows(wake_->last_value())) return true;
  const std::uint64_t pokes = pokes_;
  const Deadline probe_due(policy_.next_probe());
  wake_->wait_beyond(policy_.frontier(), pokes_, deadline.earlier(probe_due), stop);
  if (stop.stop_requested()) return false;
  if (pokes != pokes_ || policy_.expects_rows(wake_->last_value())) return true;
  if (!probe_due.passed()) return false;
  // A statement also sees that an adopted table was written anew.
  if (outbox_.adopted) return true;
  auto lease = borrow(stop);
  if (!lease) return fail(lease.error());
  if (policy_.next() == ReadPolicy::Step::fetch) return true;
  return probe(**lease, std::move(stop));
}

/// False: a stop was asked for.
bool OutboxReader::pause_where_fruitless(std::stop_token stop) {
  if (!outbox_.adopted || fruitless_pages_ < kFruitlessPages) return true;
  return pause(Deadline(fruitless_at_ + kFruitlessPause), std::move(stop));
}

/// Waits for the writers that drew ids which are not to be seen.
Result<bool> OutboxReader::wait_for_writers(Deadline deadline, std::stop_token stop) {
  while (true) {
    const auto round = policy_.next_round(wake_->last_value(), SteadyClock::now());
    if (round.pause.count() > 0 && !pause(Deadline::after(round.pause), stop)) return false;
    if (round.fetch) return true;
    auto lease = borrow(stop);
    if (!lease) return fail(lease.error());
    if (policy_.next() == ReadPolicy::Step::fetch) return true;
    const auto filled = probe(**lease, stop);
    if (!filled || *filled) return filled;
    const auto seen = look(**lease, stop);
    if (!seen) return fail(seen.error());
    if (*seen == ReadPolicy::Look::fetch) return true;
    if (*seen == ReadPolicy::Look::nothing_to_wait_for || deadline.passed()) return false;
  }
}

/// Asks the outbox itself for news. True: there is reason to fetch.
Result<bool> OutboxReader::probe(Connection& connection, std::stop_token stop) {
  std::optional<ReadingStep> step(std::in_place, status_, outbox_.adopted);
  const auto tip =
      read_tip(connection, outbox_, policy_.frontier(), Deadline::after(kStatementTimeout), stop);
  step.reset();
  if (!tip) return fail(tip.error());
  const bool news = policy_.probed(*tip, SteadyClock::now());
  if (tip->sequence >= read_.frontier) return news;
  // The sequence was set back.
  if (auto same = verify(connection, std::move(stop)); !same) return fail(same.error());
  return true;
}

/// Looks which writers may still fill gaps, and shows the oldest of them where that takes long.
Result<ReadPolicy::Look> OutboxReader::look(Connection& connection, std::stop_token stop) {
  const Deadline deadline = Deadline::after(kStatementTimeout);
  const auto holders = read_holders(connection, outbox_, deadline, stop);
  if (!holders) return fail(holders.error());
  const ReadPolicy::Look seen = policy_.looked(*holders);
  if (seen == ReadPolicy::Look::nothing_to_wait_for) {
    status_.set_writer({});
    return seen;
  }
  const auto now = SteadyClock::now();
  if (!policy_.is_writer_due(now)) return seen;
  auto oldest = read_oldest_writer(connection, outbox_, deadline, std::move(stop));
  if (!oldest) return fail(oldest.error());
  const bool hidden = oldest->seconds < 0;
  if (hidden) oldest->seconds = policy_.waiting_for_writers(now).count();
  status_.set_writer(*oldest);
  return seen;
}

// ---- the rows of a statement

/// Sends a statement, for several batches where no other pipeline waits for a connection.
Result<RowStream> OutboxReader::send(Lease lease, const ReadLimits& limits) {
  const auto query =
      policy_.begin_statement(limits, pool_.contended(outbox_.code()) ? 1 : kBatchesAStatement);
  return RowStream::send(std::move(lease), decoder_, query.beyond, kNoEnd, query.rows, read_.last,
                         read_.history);
}

/// The statement that is under way, or a new one.
Result<RowStream> OutboxReader::stream(const ReadLimits& limits, std::stop_token stop) {
  if (auto kept = kept_.take()) return std::move(*kept);
  auto lease = borrow(std::move(stop));
  if (!lease) return fail(lease.error());
  return send(std::move(*lease), limits);
}

Result<RecordBatch> OutboxReader::read_page(const ReadLimits& limits, std::stop_token stop) {
  auto rows = stream(limits, stop);
  if (!rows) return fail(rows.error());
  policy_.begin_page(rows->left());
  RecordBatch batch;
  if (auto taken = take_rows(*rows, limits, batch, stop); !taken) return fail(taken.error());
  const auto now = SteadyClock::now();
  const auto end = policy_.conclude(limits, wake_->last_value(), now);
  fruitless_pages_ = batch.empty() ? fruitless_pages_ + 1 : 0;
  fruitless_at_ = now;
  if (policy_.next() != ReadPolicy::Step::wait_for_writers) status_.set_writer({});
  if (end.leave) rows->leave(policy_.worth_taking(wake_->last_value()));
  if (end.gap_passed) {
    const auto none_lost = look_for_lost_rows(rows->connection(), end.began_at, std::move(stop));
    if (!none_lost) return fail(none_lost.error());
  }
  if (end.goes_on) {
    kept_.keep(std::move(*rows));
  } else if (end.read_ahead && !pool_.contended(outbox_.code())) {
    auto next = send(rows->take_lease(), limits);
    if (!next) return fail(next.error());
    kept_.keep(std::move(*next));
  }
  return batch;
}

Result<bool> OutboxReader::next_row(RowStream& rows, std::stop_token stop) {
  const ReadingStep step(status_, outbox_.adopted);
  return rows.next(std::move(stop));
}

Result<void> OutboxReader::take_rows(RowStream& rows, const ReadLimits& limits, RecordBatch& batch,
                                     std::stop_token stop) {
  batch.records.reserve(std::min(limits.records, static_cast<std::size_t>(rows.left())));
  bool reached = false;
  while (true) {
    const auto next = next_row(rows, stop);
    if (!next) return fail(next.error());
    if (!*next) return decoder_.check_end(reached);
    auto row = rows.row(batch.arena);
    if (!row) return fail(row.error());
    if (row->is_end) {
      policy_.reached(row->record.outbox_id);
      read_.history = row->history;
      reached = true;
      continue;
    }
    if (!take_row(*row, batch)) {
      rows.leave(policy_.worth_taking(wake_->last_value()));
      return {};
    }
    if (policy_.page_is_full(batch.records.size(), limits)) return {};
  }
}

/// False: the statement's further rows are left.
bool OutboxReader::take_row(OutboxRow& row, RecordBatch& batch) {
  switch (policy_.take(row.record.outbox_id, row.bytes, row.claim_check)) {
    case ReadPolicy::Verdict::leave:
      return false;
    case ReadPolicy::Verdict::skip:
      return true;
    case ReadPolicy::Verdict::claim_check: {
      const std::int64_t settled_id =
          std::max(batch.empty() ? read_.last.id : batch.records.back().id, policy_.skipped_to());
      const bool resumed = resume_row_ > 0 && row.record.pgt_id == read_.last.mark;
      claim_.emplace(row, settled_id, resumed ? resume_row_ : 0, decoder_.shape_of(row),
                     claim_limits_);
      resume_row_ = 0;
      return false;
    }
    case ReadPolicy::Verdict::hand_out:
      resume_row_ = 0;
      batch.add(std::move(row.record), decoder_.shape_of(row));
      return true;
  }
  return false;
}

/// What is not there may be what retention deleted: that is never passed in silence.
Result<void> OutboxReader::look_for_lost_rows(Connection& connection, std::int64_t began_at,
                                              std::stop_token stop) {
  // Of an adopted one, the statement itself looks whether the table was truncated.
  if (outbox_.adopted) return {};
  const auto facts = look_at_position(connection, outbox_, key_, read_,
                                      Deadline::after(kStatementTimeout), std::move(stop));
  if (!facts) return fail(facts.error());
  if (facts->lost_rows > 0 && facts->purged_below > began_at) {
    return fail(*judge_position(read_.last, *facts, outbox_, key_.pipeline));
  }
  return {};
}

Result<RecordBatch> OutboxReader::read_claim(const ReadLimits& limits, std::stop_token stop) {
  auto lease = borrow(stop);
  if (!lease) return fail(lease.error());
  RecordBatch batch;
  const auto finished = claim_->read(**lease, decoder_, limits, batch, std::move(stop));
  if (!finished) return fail(finished.error());
  if (*finished) claim_.reset();
  return batch;
}

void OutboxReader::note_handed_out(const RecordBatch& batch) {
  if (batch.empty()) return;
  read_.last = batch.records.back().position();
  policy_.handed_out(read_.last.id);
}

// ---- beside the normal reading

Result<RecordBatch> OutboxReader::read(ReplayReader& replay, const ReadLimits& limits,
                                       std::stop_token stop) {
  auto lease = borrow(stop);
  if (!lease) return fail(lease.error());
  return replay.read(std::move(*lease), decoder_, policy_.frontier(), limits, std::move(stop));
}

Result<std::int64_t> OutboxReader::rows_beyond(std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop, outbox_.code());
  if (!lease) return fail(lease.error());
  const std::string sql =
      outbox_.adopted ? fmt::format("select c.rows from {} c where $2::bigint > 0",
                                    adopted_call(outbox_, "relay_adopted_count", "$1::bigint"))
                      : fmt::format(
                            "select count(*) from (select from {} o where o.id > $1::bigint limit "
                            "$2::bigint) r",
                            qualified(outbox_.table));
  const auto rows =
      (*lease)->query(sql, {std::to_string(policy_.frontier()), std::to_string(kMostCounted)},
                      Deadline::after(kStatementTimeout), std::move(stop));
  if (!rows) return fail(rows.error());
  return rows->integer(0, 0);
}

}  // namespace relay::outbox
