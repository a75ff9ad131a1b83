#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>

#include "connector/source.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/claim_check.h"
#include "outbox/page_size.h"
#include "outbox/row_decoder.h"
#include "outbox/row_stream.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// Reads a range of rows once more that were read before, part by part, beside the normal reading.
/// Goes on where it stood after an error. One thread at a time.
class ReplayReader {
 public:
  /// The rows from..to; claim checks are cut as `limits` say.
  ReplayReader(std::int64_t from, std::int64_t to, ClaimCheck::Limits limits)
      : to_(to), claim_limits_(limits), done_(from - 1) {}

  /// The next rows of the range, of those up to `frontier`: the others are still to be read for the
  /// first time. An empty batch: the range is done.
  Result<RecordBatch> read(postgres::Lease lease, RowDecoder& decoder, std::int64_t frontier,
                           const ReadLimits& limits, std::stop_token stop);

 private:
  Result<bool> read_claim(postgres::Connection& connection, RowDecoder& decoder,
                          const ReadLimits& limits, RecordBatch& batch, std::stop_token stop);
  Result<bool> read_page(postgres::Lease& lease, RowDecoder& decoder, std::int64_t to,
                         const ReadLimits& limits, RecordBatch& batch, std::stop_token stop);
  bool take(OutboxRow& row, RowDecoder& decoder, RecordBatch& batch);

  const std::int64_t to_;
  const ClaimCheck::Limits claim_limits_;
  std::int64_t done_;  // up to here
  std::optional<ClaimCheck> claim_;
  PageSize size_;
};

}  // namespace relay::outbox
