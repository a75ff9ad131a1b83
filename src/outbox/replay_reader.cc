#include "outbox/replay_reader.h"

#include <algorithm>
#include <utility>

namespace relay::outbox {

Result<RecordBatch> ReplayReader::read(postgres::Lease lease, RowDecoder& decoder,
                                       std::int64_t frontier, const ReadLimits& limits,
                                       std::stop_token stop) {
  const std::int64_t done = claim_ ? claim_->outbox_id() - 1 : done_;
  RecordBatch batch;
  while (batch.empty()) {
    const auto more = claim_
                          ? read_claim(*lease, decoder, limits, batch, stop)
                          : read_page(lease, decoder, std::min(to_, frontier), limits, batch, stop);
    if (!more) {
      // What was not handed out is read again, a claim check from its beginning.
      claim_.reset();
      done_ = done;
      return fail(more.error());
    }
    if (!*more) break;
  }
  return batch;
}

Result<bool> ReplayReader::read_claim(postgres::Connection& connection, RowDecoder& decoder,
                                      const ReadLimits& limits, RecordBatch& batch,
                                      std::stop_token stop) {
  const auto finished = claim_->read(connection, decoder, limits, batch, std::move(stop));
  if (!finished) return fail(finished.error());
  if (*finished) claim_.reset();
  return true;
}

/// False: the range has no more rows.
Result<bool> ReplayReader::read_page(postgres::Lease& lease, RowDecoder& decoder, std::int64_t to,
                                     const ReadLimits& limits, RecordBatch& batch,
                                     std::stop_token stop) {
  if (done_ >= to) return false;
  auto rows = RowStream::send(std::move(lease), decoder, done_, to, size_.rows(limits), {}, {});
  if (!rows) return fail(rows.error());
  std::int64_t came = 0;
  std::size_t bytes = 0;
  bool looked_further = false;
  bool said_end = false;
  while (true) {
    const auto next = rows->next(stop);
    if (!next) return fail(next.error());
    if (!*next) {
      if (auto known = decoder.check_end(said_end); !known) return fail(known.error());
      break;
    }
    auto row = rows->row(batch.arena);
    if (!row) return fail(row.error());
    if (row->is_end) {
      said_end = true;
      looked_further = row->record.outbox_id > done_;
      done_ = std::max(done_, row->record.outbox_id);
      continue;
    }
    ++came;
    bytes += row->bytes;
    if (!take(*row, decoder, batch) || bytes >= limits.bytes) {
      rows->leave(size_.worth_taking(rows->left(), came, bytes));
      break;
    }
  }
  size_.learn(came, bytes);
  if (claim_) {
    size_.met_claim_check();
  } else if (rows->left() == 0) {
    size_.filled();
  }
  lease = rows->take_lease();
  return came > 0 || looked_further;
}

/// False: the statement's further rows are left.
bool ReplayReader::take(OutboxRow& row, RowDecoder& decoder, RecordBatch& batch) {
  done_ = row.record.outbox_id;
  if (row.claim_check) {
    claim_.emplace(row, done_ - 1, 0, decoder.shape_of(row), claim_limits_);
    return false;
  }
  batch.add(std::move(row.record), decoder.shape_of(row));
  return true;
}

}  // namespace relay::outbox
