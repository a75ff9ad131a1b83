#include "outbox/outbox_source.h"

#include <utility>

#include "core/log.h"
#include "outbox/outbox_info.h"
#include "outbox/starting_position.h"

namespace relay::outbox {

namespace {

constexpr std::chrono::seconds kBorrowTimeout{30};
constexpr std::chrono::seconds kStatementTimeout{30};
/// Ids without rows over which a position is moved, so that they are not read again.
constexpr std::int64_t kLongGap = 100000;
/// Over shorter ones it is moved this often.
constexpr std::chrono::seconds kPassEvery{1};

}  // namespace

OutboxSource::OutboxSource(OutboxOptions options, postgres::Pool* pool, std::shared_ptr<Wake> wake)
    : options_(std::move(options)),
      pool_(pool),
      wake_(std::move(wake)),
      keeper_(pool, {options_.group, options_.pipeline}) {}

/// The error of a refused statement, with the table or the privilege that is missing.
Error OutboxSource::explained(Error error, std::stop_token stop) {
  if (error.code != "42501" && error.code != "42P01") return error;
  auto lease = pool_->borrow(Deadline::after(kStatementTimeout), stop);
  if (!lease) return error;
  return explain_refusal(**lease, options_.outbox, options_.group, options_.pipeline,
                         std::move(error), Deadline::after(kStatementTimeout), std::move(stop));
}

Result<void> OutboxSource::open(std::stop_token stop) {
  const auto opened = try_open(stop);
  if (!opened) {
    return fail(explained(opened.error(), std::move(stop)).in_context("opening the outbox"));
  }
  open_again_ = false;
  return {};
}

Result<void> OutboxSource::try_open(std::stop_token stop) {
  if (!pool_) {
    return fail(ErrorClass::misconfigured, "no_database", "the outbox's database is not known",
                "set the relay's postgres_url");
  }
  stop_ = stop;
  auto lease = pool_->borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return fail(lease.error());
  if (options_.owns && !options_.before_open.empty()) {
    const auto made =
        (*lease)->query(options_.before_open, {}, Deadline::after(kStatementTimeout), stop);
    if (!made) return fail(made.error());
  }
  auto found = resolve_outbox(**lease, options_.outbox, options_.group, options_.pipeline,
                              Deadline::after(kStatementTimeout), stop);
  if (!found) return fail(found.error());
  if (found->adopted) {
    lease->release();
    lease = pool_->borrow(Deadline::after(kBorrowTimeout), stop, found->code());
    if (!lease) return fail(lease.error());
  }
  postgres::Connection& connection = **lease;
  const Deadline deadline = Deadline::after(kStatementTimeout);
  if (auto checked = check_outbox(connection, *found, deadline, stop); !checked) return checked;
  auto start =
      options_.owns
          ? take_position(connection, *found, options_, deadline, std::move(stop))
          : position_to_watch_from(connection, *found, options_, deadline, std::move(stop));
  if (!start) return fail(start.error());
  log::debug("outbox_opened", options_.pipeline, "reading {} behind {} (row {})", found->table,
             start->read.frontier, start->read.last.row);
  std::shared_ptr<SnapshotReader> first;
  if (start->snapshot) {
    auto opened = SnapshotReader::open(*pool_, connection, *found, options_, start->ownership,
                                       deadline, stop_);
    if (!opened) return fail(opened.error());
    first = std::move(*opened);
  }
  set_snapshot(std::move(first));
  keeper_.begin(*found, start->ownership, start->read.history);
  if (options_.held && options_.owns) {
    options_.held->set({options_.group, found->incarnation, start->ownership.token});
  }
  underway_.clear();
  replays_.clear();
  backlog_.make_due();
  status_.set_sequence(found->sequence);
  status_.set_writer({});
  adopted_ = found->adopted;
  written_to_ = start->read.frontier;
  written_history_ = start->read.history;
  written_at_ = {};
  reader_ = std::make_unique<OutboxReader>(*pool_, wake_, std::move(*found), options_,
                                           std::move(*start), status_);
  return {};
}

Result<RecordBatch> OutboxSource::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  if (open_again_ || !reader_) {
    // The cause of the error may have been removed meanwhile.
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  if (const auto first = snapshot()) {
    return read_snapshot(*first, limits, deadline, std::move(stop));
  }
  const std::int64_t began_at = reader_->frontier();
  auto batch = reader_->read(limits, deadline, stop);
  keeper_.note_history(began_at, reader_->history());
  if (!batch) {
    const Error error = explained(batch.error(), std::move(stop));
    open_again_ = error.error_class == ErrorClass::misconfigured;
    return fail(error.in_context("reading the outbox"));
  }
  if (!batch->empty()) {
    backlog_.handed_out(batch->records.size());
    underway_.add(*batch);
    if (options_.settled) options_.settled->read(batch->records);
    return batch;
  }
  if (auto passed = pass_over_gap(false); !passed) return fail(passed.error());
  return batch;
}

std::shared_ptr<SnapshotReader> OutboxSource::snapshot() const {
  const MutexLock lock(mutex_);
  return snapshot_;
}

void OutboxSource::set_snapshot(std::shared_ptr<SnapshotReader> snapshot) {
  const MutexLock lock(mutex_);
  snapshot_ = std::move(snapshot);
}

/// The rows of the table, and the changes meanwhile. When all of that is settled, the normal
/// reading begins where it ends.
Result<RecordBatch> OutboxSource::read_snapshot(SnapshotReader& snapshot, const ReadLimits& limits,
                                                Deadline deadline, std::stop_token stop) {
  auto batch = snapshot.read(limits, deadline, stop);
  if (!batch) {
    const Error error = explained(batch.error(), std::move(stop));
    open_again_ = error.error_class == ErrorClass::misconfigured;
    return fail(error.in_context("reading the rows of the table"));
  }
  if (!snapshot.is_finished()) return batch;
  auto start = snapshot.end();
  if (!start) return fail(start.error());
  keeper_.begin(snapshot.outbox(), start->ownership, {});
  reader_ = std::make_unique<OutboxReader>(*pool_, wake_, snapshot.outbox(), options_,
                                           std::move(*start), status_);
  set_snapshot(nullptr);
  return batch;
}

/// Where the filter of an adopted outbox wants few rows, or ids are rolled back, no acknowledgement
/// moves the position on. Ids that were passed are not read again, and are not missed when the
/// table is written anew. When that has happened, it is stored that nothing was missed.
Result<void> OutboxSource::pass_over_gap(bool now) {
  if (!adopted_ || !options_.owns || underway_.rows() > 0) return {};
  const std::int64_t frontier = reader_->frontier();
  const bool is_moved = frontier > written_to_ && frontier > reader_->last_row();
  const bool is_renewed = reader_->history() != written_history_;
  if (!is_moved && !is_renewed) return {};
  const auto time = SteadyClock::now();
  const bool is_long = frontier - written_to_ >= kLongGap;
  if (!now && !is_renewed && !is_long && time - written_at_ < kPassEvery) return {};
  auto passed = keeper_.pass(frontier);
  if (!passed) return fail(passed.error().in_context("writing the position"));
  written_to_ = frontier;
  written_history_ = reader_->history();
  written_at_ = time;
  return {};
}

Result<void> OutboxSource::acknowledge(const Position& settled,
                                       std::span<const DeadLetter> letters) {
  if (!options_.owns) return {};
  if (SnapshotReader::owns(settled)) {
    const auto first = snapshot();
    return first ? first->settle(settled, letters) : Result<void>();
  }
  // The sink has them, whether the position can be written or not.
  if (options_.settled) options_.settled->settle(settled.id);
  auto written = keeper_.settle(settled, letters);
  if (!written) return fail(written.error().in_context("writing the position"));
  underway_.settle(settled);
  return {};
}

void OutboxSource::count_backlog() {
  const auto begun = SteadyClock::now();
  if (!backlog_.is_due(begun)) return;
  // The number is only shown: a failure appears elsewhere.
  const auto rows = reader_->rows_beyond(stop_);
  backlog_.counted(rows ? std::optional(*rows) : std::nullopt, begun, SteadyClock::now());
}

std::optional<std::int64_t> OutboxSource::lag() {
  // While rows of the table come first, changes wait that nothing has counted.
  if (!reader_ || snapshot()) return std::nullopt;
  std::int64_t rows = underway_.rows() + (reader_->within_row() ? 1 : 0);
  if (reader_->more_to_come()) {
    count_backlog();
    rows += backlog_.rows();
  }
  return rows;
}

bool OutboxSource::more_to_come() const {
  // An id may have been drawn by a transaction which has not ended.
  return snapshot() || (reader_ && reader_->more_to_come());
}

std::optional<EndReport> OutboxSource::report() const {
  if (const auto first = snapshot()) return first->report();
  if (!status_.reads_slowly()) return std::nullopt;
  return EndReport{
      "slow",
      Error{ErrorClass::transient,
            "slow_read",
            "steps of reading the adopted table take longer than a second; those of other adopted "
            "tables may have to wait for them",
            "the table is read by code of its owner: see what this waits for, a lock or an output "
            "function: select pid, wait_event_type, wait_event, query from pg_stat_activity where "
            "application_name = 'pgtrickle-relay'",
            {}},
      {}};
}

void OutboxSource::close() {
  auto flushed = keeper_.flush();
  if (flushed && reader_) flushed = pass_over_gap(true);
  if (!flushed) log::failure("position_not_written", options_.pipeline, flushed.error());
  underway_.clear();
  status_.set_writer({});
  set_snapshot(nullptr);
  reader_.reset();
}

Result<RecordBatch> OutboxSource::read_range(std::int64_t from, std::int64_t to,
                                             const std::string& suffix, const ReadLimits& limits,
                                             std::stop_token stop) {
  if (!reader_) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  auto replay = replays_.find(suffix);
  if (replay == replays_.end()) {
    replay = replays_.emplace(suffix, reader_->replay(from, to)).first;
  }
  auto batch = reader_->read(replay->second, limits, std::move(stop));
  if (!batch) return fail(batch.error().in_context("reading the outbox again"));
  batch->id_suffix = suffix;
  if (batch->empty()) replays_.erase(replay);
  return batch;
}

}  // namespace relay::outbox
