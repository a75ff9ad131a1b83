#include "outbox/claim_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace relay::outbox {

namespace {

using postgres::PgResult;

constexpr std::chrono::seconds kStatementTimeout{60};
constexpr std::chrono::seconds kAbandonTimeout{5};
// A batch of a claim check is held as text, as rows and as messages at once.
constexpr std::size_t kMaxBatchBytes = 4u << 20;
constexpr std::int64_t kFewestRows = 1000;

std::size_t byte_limit(const ReadLimits& limits) {
  return std::clamp<std::size_t>(limits.bytes, 1, kMaxBatchBytes);
}

}  // namespace

void ClaimCheck::Part::add(const DeltaRow& row, ColumnOrder& order) {
  std::string& rows = row.inserted ? inserted : deleted;
  rows += rows.empty() ? '[' : ',';
  rows += row.data;
  order.restore(rows.data() + rows.size() - row.data.size(), row.data.size());
  ++(row.inserted ? inserted_count : deleted_count);
}

void ClaimCheck::Part::clear() {
  inserted.clear();
  deleted.clear();
  inserted_count = deleted_count = 0;
}

ClaimCheck::ClaimCheck(const OutboxRow& row, std::int64_t settled_id, std::int64_t rows_done,
                       std::shared_ptr<const TableShape> shape, Limits limits)
    : shape_(std::move(shape)),
      outbox_id_(row.record.outbox_id),
      settled_id_(settled_id),
      expected_(std::get<Delta>(row.record.content).inserted_count +
                std::get<Delta>(row.record.content).deleted_count),
      max_record_bytes_(limits.max_record_bytes),
      pgt_id_(row.record.pgt_id),
      refresh_id_(row.record.refresh_id),
      headers_(row.record.headers),
      refresh_mode_(std::get<Delta>(row.record.content).refresh_mode),
      created_at_(row.record.created_at),
      refresh_duration_ms_(std::get<Delta>(row.record.content).refresh_duration_ms),
      full_refresh_(std::get<Delta>(row.record.content).full_refresh),
      cutter_(limits.delta_max_rows, DeltaCutter::kMaxBytes, shape_->key_columns),
      rows_done_(rows_done) {}

/// The position of a part that is not the last one lies within the claim check: behind the last
/// settled row, so many rows on.
Record& ClaimCheck::append(RecordBatch& batch, bool final) {
  Record record;
  record.id = final ? outbox_id_ : settled_id_;
  record.row = final ? 0 : rows_done_;
  record.outbox_id = outbox_id_;
  record.pgt_id = record.mark = batch.arena.copy(pgt_id_);
  record.created_at = created_at_;
  record.refresh_id = batch.arena.copy(refresh_id_);
  record.headers = batch.arena.copy(headers_);
  Delta delta;
  delta.refresh_mode = batch.arena.copy(refresh_mode_);
  delta.refresh_duration_ms = refresh_duration_ms_;
  delta.full_refresh = full_refresh_;
  delta.final = final;
  record.content = delta;
  return batch.add(std::move(record), shape_);
}

void ClaimCheck::finish_part(RecordBatch& batch, bool final) {
  rows_done_ = cutter_.last();
  const auto close = [&batch](std::string& rows) {
    if (!rows.empty()) rows += ']';
    return batch.arena.copy(rows);
  };
  Record& record = append(batch, final);
  Delta& delta = std::get<Delta>(record.content);
  delta.inserted = close(part_.inserted);
  delta.deleted = close(part_.deleted);
  delta.inserted_count = part_.inserted_count;
  delta.deleted_count = part_.deleted_count;
  delta.first_ordinal = cutter_.first() - 1;
  const bool whole = final && cutter_.first() == 1;
  delta.part = whole ? 0 : cutter_.part();
  if (part_refused_) record.refused = record_too_large(max_record_bytes_);
  batch_bytes_ += part_.bytes();
  mean_row_bytes_ = std::max<std::size_t>(
      1, part_.bytes() / static_cast<std::size_t>(std::max<std::int64_t>(cutter_.rows(), 1)));
  part_.clear();
  part_refused_ = false;
  cutter_.end_part();
}

/// The rows behind what is done are not there (any more), up to this one. None may be missing: then
/// the record says only that the claim check ends.
void ClaimCheck::pass_missing(RecordBatch& batch, std::int64_t last, bool final) {
  const std::int64_t done = rows_done_;
  rows_done_ = std::max(done, last);
  Record& record = append(batch, final);
  std::get<Delta>(record.content).first_ordinal = done;
  if (done >= last) return;
  record.refused = share(
      Error{ErrorClass::rejected,
            "claim_check_rows_missing",
            fmt::format("outbox row {} announces {} rows, and those from {} to {} are not there",
                        outbox_id_, expected_, done + 1, last),
            "rows of the claim check were deleted; the table itself still has what is current",
            {}});
}

std::int64_t ClaimCheck::rows_to_ask(const ReadLimits& limits) const {
  const auto fitting = static_cast<std::int64_t>(byte_limit(limits) / mean_row_bytes_);
  return std::max(fitting + 1, kFewestRows + 2);
}

Result<ClaimCheck::Fetched> ClaimCheck::fetch(postgres::Connection& connection, RowDecoder& decoder,
                                              const ReadLimits& limits, std::int64_t rows,
                                              RecordBatch& batch, std::stop_token stop) {
  const std::string params[] = {std::to_string(outbox_id_), std::to_string(rows_done_),
                                std::to_string(rows)};
  const postgres::Param texts[] = {params[0], params[1], params[2]};
  auto started = connection.start(decoder.delta_sql(), texts, postgres::Connection::Format::binary);
  if (!started) return fail(started.error());
  const std::size_t before = batch.records.size();
  PgResult previous;  // the cutter compares with the row before
  std::int64_t got = 0;
  std::int64_t last = rows_done_;
  while (true) {
    auto next = connection.next_row(kStatementTimeout, stop);
    if (!next) return fail(next.error());
    if (!*next) break;
    auto row = decoder.decode_delta_row(next->get());
    if (!row) return fail(row.error());
    ++got;
    if (row->number > last + 1) {
      if (cutter_.rows() > 0) finish_part(batch, false);
      pass_missing(batch, row->number - 1, false);
    }
    last = row->number;
    if (!cutter_.takes(*row)) {
      finish_part(batch, false);
      if (batch_bytes_ >= byte_limit(limits) || batch.records.size() >= limits.records) {
        connection.abandon(Deadline::after(kAbandonTimeout));
        return Fetched::cut;
      }
    }
    cutter_.add(*row);
    part_.add(*row, decoder.order());
    part_refused_ = row->data.empty();
    previous = std::move(*next);
  }
  if (got < rows) return Fetched::all;
  return batch.records.size() > before ? Fetched::cut : Fetched::too_few;
}

Result<bool> ClaimCheck::read(postgres::Connection& connection, RowDecoder& decoder,
                              const ReadLimits& limits, RecordBatch& batch, std::stop_token stop) {
  batch_bytes_ = 0;
  for (std::int64_t rows = rows_to_ask(limits);; rows *= 4) {
    // What an earlier fetch left unfinished is fetched again.
    part_.clear();
    part_refused_ = false;
    cutter_.end_part();
    const auto fetched = fetch(connection, decoder, limits, rows, batch, stop);
    if (!fetched) return fail(fetched.error());
    if (*fetched == Fetched::too_few) continue;
    if (*fetched == Fetched::cut) return false;
    const bool whole = cutter_.rows() > 0 && cutter_.last() >= expected_;
    if (cutter_.rows() > 0) finish_part(batch, whole);
    if (!whole) pass_missing(batch, expected_, true);
    return true;
  }
}

}  // namespace relay::outbox
