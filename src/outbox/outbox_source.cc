#include "outbox/outbox_source.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "core/log.h"
#include "outbox/gone_rows.h"
#include "outbox/outbox_info.h"
#include "outbox/outbox_position.h"
#include "outbox/outbox_reader.h"
#include "outbox/position_keeper.h"

namespace relay::outbox {

namespace {

constexpr std::chrono::seconds kBorrowTimeout{30};
constexpr std::chrono::seconds kStatementTimeout{30};
constexpr std::chrono::seconds kCountEvery{1};
/// Counting a long backlog takes at most this part of the time.
constexpr int kCountingShare = 200;

/// Counts the outbox rows that were handed out and are not settled. Any thread.
class Underway {
 public:
  void add(const RecordBatch& batch) {
    const auto whole = std::count_if(batch.records.begin(), batch.records.end(),
                                     [](const Record& record) { return record.row == 0; });
    const Record& last = batch.records.back();
    const std::lock_guard lock(mutex_);
    batches_.push_back({last.id, last.row, whole});
    rows_ += whole;
  }
  void settle(const Position& position) {
    const std::lock_guard lock(mutex_);
    while (!batches_.empty() &&
           !(position < Position{batches_.front().id, batches_.front().row, {}})) {
      rows_ -= batches_.front().rows;
      batches_.pop_front();
    }
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    batches_.clear();
    rows_ = 0;
  }
  std::int64_t rows() const {
    const std::lock_guard lock(mutex_);
    return rows_;
  }

 private:
  struct Batch {
    std::int64_t id;
    std::int64_t row;
    std::int64_t rows;
  };
  mutable std::mutex mutex_;
  std::deque<Batch> batches_;
  std::int64_t rows_ = 0;
};

}  // namespace

struct OutboxSource::Impl {
  Impl(OutboxOptions source_options, postgres::Pool* source_pool, std::shared_ptr<Wake> source_wake)
      : options(std::move(source_options)),
        pool(source_pool),
        wake(std::move(source_wake)),
        key{options.group, options.pipeline},
        keeper(pool, key) {}

  const OutboxOptions options;
  postgres::Pool* const pool;
  const std::shared_ptr<Wake> wake;
  const state::PositionKey key;
  PositionKeeper keeper;
  Underway underway;

  // Of the reader thread.
  bool open_again = false;
  std::map<std::string, OutboxReader::Range> ranges;  // by the suffix of their ids
  std::int64_t beyond = 0;
  SteadyClock::time_point count_at{};
  std::stop_token stop;

  mutable std::mutex mutex;
  std::shared_ptr<OutboxReader> reader;  // guarded; used by the reader thread
  OutboxInfo outbox;                     // guarded

  Result<void> open(std::stop_token token);
  Result<state::Ownership> claim(postgres::Connection& connection, const OutboxInfo& found,
                                 Deadline deadline, std::stop_token token);
  Result<state::Ownership> look_on(postgres::Connection& connection, const OutboxInfo& found,
                                   Deadline deadline, std::stop_token token);
  Result<bool> consume_loss_acceptance(postgres::Connection& connection, Deadline deadline,
                                       std::stop_token token);
  Result<Position> accept_loss(postgres::Connection& connection, const OutboxInfo& found,
                               const state::Ownership& ownership, const PositionFacts& facts,
                               const Error& loss, Deadline deadline, std::stop_token token);
  std::int64_t count_beyond();
  Error explained(Error error, std::stop_token token);
};

/// What a statement that was refused lacks.
Error OutboxSource::Impl::explained(Error error, std::stop_token token) {
  if (error.code != "42501" && error.code != "42P01") return error;
  auto lease = pool->borrow(Deadline::after(kStatementTimeout), token);
  if (!lease) return error;
  return explain_refusal(**lease, options.outbox, options.group, options.pipeline, std::move(error),
                         Deadline::after(kStatementTimeout), std::move(token));
}

Result<void> OutboxSource::Impl::open(std::stop_token token) {
  if (!pool) {
    return fail(ErrorClass::misconfigured, "no_database", "the outbox's database is not known",
                "set the relay's postgres_url");
  }
  stop = token;
  auto lease = pool->borrow(Deadline::after(kBorrowTimeout), token);
  if (!lease) return fail(lease.error());
  postgres::Connection& connection = **lease;
  const Deadline deadline = Deadline::after(kStatementTimeout);
  auto found =
      resolve_outbox(connection, options.outbox, options.group, options.pipeline, deadline, token);
  if (!found) return fail(found.error());
  if (auto checked = check_outbox(connection, *found, deadline, token); !checked) return checked;
  auto ownership = options.owns ? claim(connection, *found, deadline, token)
                                : look_on(connection, *found, deadline, token);
  if (!ownership) return fail(ownership.error());
  log::debug("outbox_opened", options.pipeline, "reading {} behind {} (row {})", found->table,
             ownership->position.id, ownership->position.row);
  auto fresh = std::make_shared<OutboxReader>(*pool, wake, *found, key, options,
                                              ownership->position, ownership->skipped);
  keeper.begin(*found, *ownership);
  underway.clear();
  ranges.clear();
  count_at = {};
  const std::lock_guard lock(mutex);
  reader = std::move(fresh);
  outbox = std::move(*found);
  return {};
}

/// Takes ownership of a position from which reading can go on.
Result<state::Ownership> OutboxSource::Impl::claim(postgres::Connection& connection,
                                                   const OutboxInfo& found, Deadline deadline,
                                                   std::stop_token token) {
  auto ownership = state::claim_position(connection, found.incarnation, key, options.worker_id,
                                         {options.start}, options.outbox, deadline, token);
  if (!ownership) return ownership;
  if (options.settled) {
    options.settled->begin(found.incarnation);
    const auto looked = look_for_gone_rows(connection, *options.settled, deadline, token);
    if (!looked) return fail(looked.error());
  }
  const auto facts = look_at_position(connection, found, key, ownership->position, deadline, token);
  if (!facts) return fail(facts.error());
  const auto loss = judge_position(ownership->position, *facts, found.table, options.pipeline);
  if (!loss) {
    // An operator's word that nothing needed does not count for a later loss.
    const auto spent = consume_loss_acceptance(connection, deadline, token);
    if (!spent) return fail(spent.error());
    // A row that somebody deleted long ago is not missed later.
    if (!facts->mark) ownership->position.mark.clear();
    return ownership;
  }
  auto position =
      accept_loss(connection, found, *ownership, *facts, *loss, deadline, std::move(token));
  if (!position) return fail(position.error());
  ownership->position = std::move(*position);
  // The ids of a rewound outbox are drawn again.
  if (loss->code == kRewound) ownership->skipped.clear();
  return ownership;
}

/// Where somebody begins who owns nothing: as `start` says, among the rows that there are.
Result<state::Ownership> OutboxSource::Impl::look_on(postgres::Connection& connection,
                                                     const OutboxInfo& found, Deadline deadline,
                                                     std::stop_token token) {
  auto first = first_position(connection, found, options.start, deadline, std::move(token));
  if (!first) return fail(first.error());
  if (first->lost_rows > 0) {
    first->position.id += first->lost_rows;
    log::warn("rows_purged", options.pipeline, "rows of outbox {} up to {} are gone", found.table,
              first->position.id);
  }
  state::Ownership ownership;
  ownership.position = std::move(first->position);
  ownership.skipped = std::move(first->skipped);
  return ownership;
}

/// Whether the operator said that what is lost is lost.
Result<bool> OutboxSource::Impl::consume_loss_acceptance(postgres::Connection& connection,
                                                         Deadline deadline, std::stop_token token) {
  if (!options.control) {
    return state::consume_loss_acceptance(connection, options.pipeline, deadline, std::move(token));
  }
  auto lease = options.control->borrow(deadline, token);
  if (!lease) return fail(lease.error());
  return state::consume_loss_acceptance(**lease, options.pipeline, deadline, std::move(token));
}

/// Goes on where the outbox begins now, if the operator said so. From a rewound outbox everything
/// that it holds is delivered: which of it was, nobody can tell.
Result<Position> OutboxSource::Impl::accept_loss(postgres::Connection& connection,
                                                 const OutboxInfo& found,
                                                 const state::Ownership& ownership,
                                                 const PositionFacts& facts, const Error& loss,
                                                 Deadline deadline, std::stop_token token) {
  if (!facts.outbox_exists) return fail(loss);
  const auto accepted = consume_loss_acceptance(connection, deadline, token);
  if (!accepted) return fail(accepted.error());
  if (!*accepted) return fail(loss);
  log::warn("loss_accepted", options.pipeline, "{}; going on behind {}", loss.message,
            facts.purged_below);
  Position position{facts.purged_below, 0, {}};
  auto set = state::rewind_position(connection, found.incarnation, key, ownership.token, position,
                                    loss.code != kRewound, deadline, std::move(token));
  if (!set) return fail(set.error());
  return position;
}

std::int64_t OutboxSource::Impl::count_beyond() {
  const auto begun = SteadyClock::now();
  if (begun < count_at) return beyond;
  // A number to look at: a failure shows elsewhere.
  if (const auto counted = reader->rows_beyond(stop)) beyond = *counted;
  const auto took = SteadyClock::now() - begun;
  count_at = begun + std::max<SteadyClock::duration>(kCountEvery, took * kCountingShare);
  return beyond;
}

OutboxSource::OutboxSource(OutboxOptions options, postgres::Pool* pool, std::shared_ptr<Wake> wake)
    : impl_(std::make_unique<Impl>(std::move(options), pool, std::move(wake))) {}

OutboxSource::~OutboxSource() = default;

Result<void> OutboxSource::open(std::stop_token stop) {
  const auto opened = impl_->open(stop);
  if (!opened) {
    return fail(impl_->explained(opened.error(), std::move(stop)).in_context("opening the outbox"));
  }
  impl_->open_again = false;
  return {};
}

Result<RecordBatch> OutboxSource::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  if (impl_->open_again || !impl_->reader) {
    // Somebody has mended what was wrong, or not yet.
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  auto batch = impl_->reader->read(limits, deadline, stop);
  if (!batch) {
    const Error error = impl_->explained(batch.error(), std::move(stop));
    impl_->open_again = error.error_class == ErrorClass::misconfigured;
    return fail(error.in_context("reading the outbox"));
  }
  if (!batch->empty()) {
    impl_->beyond =
        std::max<std::int64_t>(0, impl_->beyond - static_cast<std::int64_t>(batch->records.size()));
    impl_->underway.add(*batch);
    if (impl_->options.settled) impl_->options.settled->read(batch->records);
  }
  return batch;
}

Result<void> OutboxSource::acknowledge(const Position& settled,
                                       std::span<const DeadLetter> letters) {
  if (!impl_->options.owns) return {};
  // The sink has them, whether the position can be written or not.
  if (impl_->options.settled) impl_->options.settled->settle(settled.id);
  auto written = impl_->keeper.settle(settled, letters);
  if (!written) return fail(written.error().in_context("writing the position"));
  impl_->underway.settle(settled);
  return {};
}

std::optional<std::int64_t> OutboxSource::lag() {
  if (!impl_->reader) return std::nullopt;
  return impl_->underway.rows() + (impl_->reader->within_row() ? 1 : 0) +
         (impl_->reader->more_to_come() ? impl_->count_beyond() : 0);
}

bool OutboxSource::more_to_come() const {
  // An id that was drawn by a transaction which has not ended.
  return impl_->reader && impl_->reader->more_to_come();
}

void OutboxSource::close() {
  const auto flushed = impl_->keeper.flush();
  if (!flushed) log::failure("position_not_written", impl_->options.pipeline, flushed.error());
  impl_->underway.clear();
  const std::lock_guard lock(impl_->mutex);
  impl_->reader.reset();
}

Result<RecordBatch> OutboxSource::read_range(std::int64_t from, std::int64_t to,
                                             const std::string& suffix, const ReadLimits& limits,
                                             std::stop_token stop) {
  if (!impl_->reader) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  auto [range, is_new] = impl_->ranges.try_emplace(suffix);
  if (is_new) {
    range->second.from = from;
    range->second.to = to;
    range->second.done = from - 1;
  }
  auto batch = impl_->reader->read_range(range->second, limits, std::move(stop));
  if (!batch) return fail(batch.error().in_context("reading the outbox again"));
  batch->id_suffix = suffix;
  if (batch->empty()) impl_->ranges.erase(range);
  return batch;
}

OpenWriter OutboxSource::oldest_open_writer() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->reader ? impl_->reader->oldest_open_writer() : OpenWriter();
}

std::string OutboxSource::watched_sequence() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->outbox.sequence;
}

}  // namespace relay::outbox
