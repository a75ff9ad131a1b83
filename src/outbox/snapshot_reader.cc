#include "outbox/snapshot_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "connector/rewound.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/pause.h"
#include "core/snapshot_mode.h"
#include "outbox/delta_cutter.h"
#include "outbox/outbox_position.h"
#include "state/dead_letters.h"
#include "state/missing_schema.h"

namespace relay::outbox {

using postgres::Connection;
using postgres::Param;

namespace {

constexpr std::string_view kMark = "snapshot ";
constexpr std::chrono::seconds kStatementTimeout{60};
constexpr std::chrono::seconds kBorrowTimeout{30};
constexpr std::chrono::seconds kStoreTimeout{10};
constexpr std::chrono::milliseconds kLookAgain{2};
constexpr std::int64_t kChangesAStep = 500;

Param optional_param(const std::string& text) {
  return text.empty() ? Param() : Param(text);
}

std::string optional_text(const postgres::Rows& rows, int column) {
  return rows.is_null(0, column) ? std::string() : std::string(rows.text(0, column));
}

/// The same page of the same moment has the same id, also when another instance reads it; another
/// page never has.
std::string page_id(const SnapshotMoment& moment, const std::string& after) {
  const std::string id = std::to_string(moment.id);
  const std::string_view parts[] = {id, " ", moment.skipped, " ", after};
  return hex(bytes_of(sha256(parts)));
}

Timestamp now_time() {
  return std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
}

}  // namespace

Result<std::shared_ptr<SnapshotReader>> SnapshotReader::open(
    postgres::Pool& pool, Connection& connection, const OutboxInfo& outbox,
    const OutboxOptions& options, const state::Ownership& ownership, Deadline deadline,
    std::stop_token stop) {
  const auto found = connection.query(
      "select nullif(s -> 'after', 'null'), nullif(s -> 'ahead', 'null'), "
      "coalesce((s ->> 'all')::bool, false), (s ->> 'rows')::bigint, (s ->> 'total')::bigint, "
      "s ->> 'skipped', s ->> 'skipped_mark' "
      "from pgtrickle.relay_snapshot_open($1, $2, $3::uuid, $4::uuid) s where s is not null",
      {options.group, options.pipeline, outbox.incarnation, ownership.token}, deadline,
      std::move(stop));
  if (!found) return fail(state::explain_missing_schema(found.error()));
  if (found->empty()) return nullptr;
  SnapshotState state;
  state.after = optional_text(*found, 0);
  state.ahead = optional_text(*found, 1);
  state.all = found->boolean(0, 2);
  state.rows = found->integer(0, 3);
  state.moment = {ownership.position.id, ownership.position.mark, optional_text(*found, 5),
                  optional_text(*found, 6)};
  const std::int64_t total = found->integer(0, 4);
  log::info("snapshot", options.pipeline, "delivering the rows of {}: {} of about {} are done",
            outbox.shape->name, state.rows, total);
  return std::shared_ptr<SnapshotReader>(
      new SnapshotReader(pool, outbox, options, ownership, std::move(state), total));
}

SnapshotReader::SnapshotReader(postgres::Pool& pool, const OutboxInfo& outbox,
                               const OutboxOptions& options, const state::Ownership& ownership,
                               SnapshotState state, std::int64_t total)
    : pool_(pool),
      outbox_(outbox),
      key_{options.group, options.pipeline},
      token_(ownership.token),
      mark_(std::string(kMark) + ownership.token),
      max_record_bytes_(options.max_record_bytes),
      page_rows_(std::max<std::int64_t>(options.delta_max_rows, 1)),
      total_(total),
      decoder_(outbox_, options.max_record_bytes),
      progress_(state),
      rows_settled_(state.rows) {}

bool SnapshotReader::owns(const Position& position) {
  return position.mark.starts_with(kMark);
}

bool SnapshotReader::is_finished() const {
  const MutexLock lock(mutex_);
  return finished_;
}

SnapshotState SnapshotReader::now() const {
  const MutexLock lock(mutex_);
  return progress_.now();
}

Result<StartingPosition> SnapshotReader::end() const {
  const SnapshotMoment moment = now().moment;
  StartingPosition start;
  start.ownership.token = token_;
  start.ownership.position = {moment.id, 0, moment.mark};
  if (!moment.skipped.empty()) {
    auto skipped = state::SkipSet::parse(moment.skipped);
    if (!skipped) return fail(skipped.error());
    start.ownership.skipped = std::move(*skipped);
  }
  start.read = {start.ownership.position, moment.id};
  return start;
}

EndReport SnapshotReader::report() const {
  const MutexLock lock(mutex_);
  const auto rows = static_cast<double>(rows_settled_);
  return EndReport{"snapshot",
                   std::nullopt,
                   {{"snapshot_rows", "Rows of the table that are delivered", rows},
                    {"snapshot_rows_expected", "Rows that the table has, as its statistics say",
                     std::max(rows, static_cast<double>(total_))}},
                   {},
                   fmt::format("snapshot: {} of about {} rows are delivered", rows_settled_,
                               std::max(rows_settled_, total_))};
}

// ---- reading

Result<RecordBatch> SnapshotReader::read(const ReadLimits& limits, Deadline deadline,
                                         std::stop_token stop) {
  while (!stop.stop_requested()) {
    RecordBatch batch;
    if (now().done) {
      if (auto waited = wait_for_end(deadline, stop); !waited) return fail(waited.error());
      return batch;
    }
    const auto claim = claim_;
    if (auto step = read_step(limits, batch, stop); !step) {
      claim_ = claim;
      if (step.error().error_class == ErrorClass::cancelled && stop.stop_requested()) break;
      return fail(step.error());
    }
    if (!batch.empty()) return batch;
    if (deadline.passed()) break;
  }
  return RecordBatch();
}

/// One transaction: changes, and the page of the same moment where all changes fit.
Result<void> SnapshotReader::read_step(const ReadLimits& limits, RecordBatch& batch,
                                       std::stop_token stop) {
  const SnapshotState from = now();
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop, postgres::Code::users);
  if (!lease) return fail(lease.error());
  Connection& connection = **lease;
  const auto begun = connection.script("begin isolation level repeatable read",
                                       Deadline::after(kStatementTimeout), stop);
  if (!begun) return begun;

  std::optional<SnapshotMoment> moment;
  std::optional<Page> page;
  if (claim_) {
    const auto last = add_claim_part(connection, batch, stop);
    if (!last) return fail(last.error());
    if (*last) moment = claim_->moment;
  } else {
    const auto planned = plan(connection, from, limits, stop);
    if (!planned) return fail(planned.error());
    if (planned->claim_check) {
      claim_ = Claim{planned->first, planned->moment, 0, 0};
    } else {
      moment = planned->moment;
      if (planned->has_changes) {
        if (auto added = add_changes(connection, *planned, batch, stop); !added) return added;
      }
      if (planned->complete) {
        auto fetched = fetch_page(connection, from, stop);
        if (!fetched) return fail(fetched.error());
        page = std::move(*fetched);
        if (auto added = add_page(*page, from, *moment, batch); !added) return added;
      }
    }
  }
  const auto ended = connection.script("commit", Deadline::after(kStatementTimeout), stop);
  if (!ended) return ended;

  std::string ahead;
  if (page) {
    const MutexLock lock(mutex_);
    ahead = progress_.to_store_ahead(page->facts);
  }
  if (!ahead.empty()) {
    if (auto stored = store_ahead(connection, ahead, stop); !stored) return stored;
  }
  if (moment) claim_.reset();
  const MutexLock lock(mutex_);
  if (moment) progress_.take_changes(std::move(*moment));
  if (page) progress_.take_page(page->facts);
  number(batch);
  return {};
}

Result<SnapshotReader::Plan> SnapshotReader::plan(Connection& connection, const SnapshotState& from,
                                                  const ReadLimits& limits, std::stop_token stop) {
  const std::int64_t rows =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(limits.records), 1, kChangesAStep);
  const auto found = connection.query(
      "select ids, coalesce(ids[1], 0), is_claim_check, complete, to_id, to_mark, to_skipped, "
      "to_skipped_mark, intact "
      "from pgtrickle.relay_snapshot_plan($1::uuid, $2::bigint, $3::uuid, $4::int8multirange, "
      "$5::uuid, $6::int, $7::bigint)",
      {outbox_.incarnation, std::to_string(from.moment.id), optional_param(from.moment.mark),
       optional_param(from.moment.skipped), optional_param(from.moment.skipped_mark),
       std::to_string(rows), std::to_string(limits.bytes)},
      Deadline::after(kStatementTimeout), std::move(stop));
  if (!found) return fail(found.error());
  if (!found->boolean(0, 8)) {
    return fail(ErrorClass::fenced, std::string(kRewound),
                fmt::format("outbox {} no longer holds what was read from it", outbox_.table));
  }
  Plan plan;
  plan.ids = found->text(0, 0);
  plan.first = found->integer(0, 1);
  plan.has_changes = plan.first != 0;
  plan.claim_check = found->boolean(0, 2);
  plan.complete = found->boolean(0, 3);
  plan.moment = {found->integer(0, 4), optional_text(*found, 5), optional_text(*found, 6),
                 optional_text(*found, 7)};
  return plan;
}

Result<void> SnapshotReader::add_changes(Connection& connection, const Plan& plan,
                                         RecordBatch& batch, std::stop_token stop) {
  const SnapshotState from = now();
  const auto sent = connection.start(
      snapshot_rows_sql("pgtrickle.relay_snapshot_changes($1::uuid, $2::bigint[], $3::bool, "
                        "$4::jsonb)",
                        {}, max_record_bytes_),
      std::vector<Param>{outbox_.incarnation, plan.ids, from.all ? "t" : "f",
                         optional_param(from.ahead)},
      Connection::Format::binary);
  if (!sent) return sent;
  while (true) {
    const auto next = connection.next_row(kStatementTimeout, stop);
    if (!next) return fail(next.error());
    if (!*next) return {};
    auto row = decoder_.decode_row(next->get(), batch.arena);
    if (!row) return fail(row.error());
    batch.add(std::move(row->record), decoder_.shape_of(*row));
  }
}

/// True: it was the last part.
Result<bool> SnapshotReader::add_claim_part(Connection& connection, RecordBatch& batch,
                                            std::stop_token stop) {
  const SnapshotState from = now();
  const auto sent = connection.start(
      snapshot_rows_sql("pgtrickle.relay_snapshot_claim($1::uuid, $2::bigint, $3::bigint, $4::int, "
                        "$5::bigint, $6::bool, $7::jsonb)",
                        ", o.last_row, o.is_last", max_record_bytes_),
      std::vector<Param>{outbox_.incarnation, std::to_string(claim_->outbox_id),
                         std::to_string(claim_->last_row), std::to_string(page_rows_),
                         std::to_string(DeltaCutter::kMaxBytes), from.all ? "t" : "f",
                         optional_param(from.ahead)},
      Connection::Format::binary);
  if (!sent) return fail(sent.error());
  bool is_last = true;
  while (true) {
    const auto next = connection.next_row(kStatementTimeout, stop);
    if (!next) return fail(next.error());
    if (!*next) return is_last;
    auto row = decoder_.decode_row(next->get(), batch.arena);
    if (!row) return fail(row.error());
    const auto [last_row, last] = snapshot_claim_end(next->get());
    is_last = last;
    Delta& delta = std::get<Delta>(row->record.content);
    delta.first_ordinal = std::exchange(claim_->last_row, last_row);
    const bool has_rows = delta.inserted_count + delta.deleted_count > 0;
    if (!has_rows && !delta.full_refresh && !(is_last && claim_->parts > 0)) continue;
    ++claim_->parts;
    delta.part = is_last && claim_->parts == 1 ? 0 : claim_->parts;
    delta.final = is_last;
    batch.add(std::move(row->record), decoder_.shape_of(*row));
  }
}

Result<SnapshotReader::Page> SnapshotReader::fetch_page(Connection& connection,
                                                        const SnapshotState& from,
                                                        std::stop_token stop) {
  std::string until;
  {
    const MutexLock lock(mutex_);
    until = progress_.until();
  }
  const auto found = connection.query(
      "select row_data, row_key from pgtrickle.relay_snapshot_page($1::uuid, $2::jsonb, $3::jsonb, "
      "$4::int, $5::bigint, $6::bigint)",
      {outbox_.incarnation, optional_param(from.after), optional_param(until),
       std::to_string(page_rows_), std::to_string(DeltaCutter::kMaxBytes),
       std::to_string(max_record_bytes_)},
      Deadline::after(kStatementTimeout), std::move(stop));
  if (!found) return fail(found.error());
  Page page;
  for (int i = 0; i < found->size(); ++i) {
    if (found->is_null(i, 1)) {
      page.facts.is_last = true;
      break;
    }
    page.facts.last_key = found->text(i, 1);
    ++page.facts.rows;
    page.rows.emplace_back(found->is_null(i, 0) ? std::string_view() : found->text(i, 0));
  }
  return page;
}

/// The page as one record; a row that is too large is one of its own.
Result<void> SnapshotReader::add_page(Page& page, const SnapshotState& from,
                                      const SnapshotMoment& moment, RecordBatch& batch) {
  const std::string id = page_id(moment, from.after);
  const Timestamp read_at = now_time();
  std::string rows;
  Delta delta;
  const auto add = [&](SharedError refused) {
    if (!rows.empty()) rows += ']';
    delta.inserted = batch.arena.copy(rows);
    delta.refresh_mode = kSnapshotMode;
    Record record;
    record.id = moment.id;
    record.pgt_id = batch.arena.copy(id);
    record.created_at = read_at;
    record.refused = std::move(refused);
    record.content = delta;
    batch.add(std::move(record), outbox_.shape);
    rows.clear();
    const std::int64_t done = delta.first_ordinal + delta.inserted_count;
    delta = Delta();
    delta.first_ordinal = done;
  };
  for (std::string& row : page.rows) {
    if (row.empty()) {
      if (delta.inserted_count > 0) add(nullptr);
      delta.inserted_count = 1;
      add(record_too_large(max_record_bytes_));
      continue;
    }
    decoder_.order().restore(row.data(), row.size());
    rows += rows.empty() ? '[' : ',';
    rows += row;
    ++delta.inserted_count;
  }
  if (delta.inserted_count > 0) add(nullptr);
  return {};
}

Result<void> SnapshotReader::store_ahead(Connection& connection, const std::string& key,
                                         std::stop_token stop) {
  const auto stored = connection.query(
      "select pgtrickle.relay_snapshot_ahead($1, $2, $3::uuid, $4::uuid, $5::jsonb)",
      {key_.group, key_.pipeline, outbox_.incarnation, token_, key},
      Deadline::after(kStatementTimeout), std::move(stop));
  if (!stored) return fail(stored.error());
  if (!stored->boolean(0, 0)) return fail(state::fenced_by_another(key_));
  return {};
}

/// Gives the records the position of their step. Those before the last one settle nothing new.
void SnapshotReader::number(RecordBatch& batch) {
  if (batch.empty()) return;
  const std::int64_t before = progress_.last_step();
  const std::int64_t step = progress_.hand_out();
  const std::string_view mark = batch.arena.copy(mark_);
  for (Record& record : batch.records) {
    record.id = progress_.now().moment.id;
    record.row = before;
    record.mark = mark;
  }
  batch.records.back().row = step;
}

/// Waits until all is settled, and stores the end where the last step had no records.
Result<void> SnapshotReader::wait_for_end(Deadline deadline, std::stop_token stop) {
  while (!stop.stop_requested()) {
    SnapshotState state;
    {
      const MutexLock lock(mutex_);
      if (finished_) return {};
      if (progress_.is_settled()) state = progress_.now();
    }
    if (state.done) return store(state, {});
    if (deadline.passed()) return {};
    if (!pause(Deadline::after(kLookAgain), stop)) return {};
  }
  return {};
}

// ---- what is settled

Result<void> SnapshotReader::settle(const Position& settled, std::span<const DeadLetter> letters) {
  std::optional<SnapshotState> state;
  {
    const MutexLock lock(mutex_);
    if (settled.mark == mark_) state = progress_.settled(settled.row);
  }
  if (!state && letters.empty()) return {};
  if (auto done = store(state, letters); !done) return done;
  const MutexLock lock(mutex_);
  if (settled.mark == mark_) progress_.stored(settled.row);
  return {};
}

/// Dead letters commit together with the position that passes them.
Result<void> SnapshotReader::store(const std::optional<SnapshotState>& state,
                                   std::span<const DeadLetter> letters) {
  const Deadline deadline = Deadline::after(kStoreTimeout);
  auto lease = pool_.borrow(deadline, {});
  if (!lease) return fail(lease.error());
  Connection& connection = **lease;
  const bool durable = !letters.empty() || (state && state->done);
  auto done = connection.script(
      fmt::format("begin; set local synchronous_commit to {}", durable ? "on" : "off"), deadline,
      {});
  if (!done) return done;
  if (!letters.empty()) {
    done = state::store_dead_letters(connection, state::relay_dead_letters(), key_.group,
                                     key_.pipeline, letters, deadline, {});
    if (!done) return done;
  }
  if (state) {
    done = store_state(connection, *state, deadline);
    if (!done) return done;
  }
  done = connection.script("commit", deadline, {});
  if (!done || !state) return done;
  const MutexLock lock(mutex_);
  rows_settled_ = state->rows;
  if (state->done && !std::exchange(finished_, true)) {
    log::info("snapshot_done", key_.pipeline, "all {} rows of {} are delivered", state->rows,
              outbox_.shape->name);
  }
  return {};
}

Result<void> SnapshotReader::store_state(Connection& connection, const SnapshotState& state,
                                         Deadline deadline) {
  const SnapshotMoment& moment = state.moment;
  const auto stored = connection.query(
      "select pgtrickle.relay_commit_snapshot($1, $2, $3::uuid, $4::uuid, $5::bigint, $6::uuid, "
      "$7::int8multirange, $8::uuid, case when not $9::bool then "
      "jsonb_build_object('after', $10::jsonb, 'rows', $11::bigint) end)",
      {key_.group, key_.pipeline, outbox_.incarnation, token_, std::to_string(moment.id),
       optional_param(moment.mark), optional_param(moment.skipped),
       optional_param(moment.skipped_mark), state.done ? "t" : "f", optional_param(state.after),
       std::to_string(state.rows)},
      deadline, {});
  if (!stored) return fail(stored.error());
  if (!stored->boolean(0, 0)) return fail(state::fenced_by_another(key_));
  return {};
}

}  // namespace relay::outbox
