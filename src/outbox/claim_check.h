#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "connector/source.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/delta_cutter.h"
#include "outbox/row_decoder.h"
#include "postgres/connection.h"

namespace relay::outbox {

/// Brings the rows of one claim check, however many, part by part, in memory that is bounded by a
/// batch. Goes on where it stood after an error. One thread at a time.
class ClaimCheck {
 public:
  /// Where a claim check is cut, and which of its rows are too large.
  struct Limits {
    std::int64_t delta_max_rows = 1000;
    std::int64_t max_record_bytes = 32 << 20;
  };
  /// `row` is the outbox row; `settled_id` the last row before it that is settled; the first
  /// `rows_done` of its rows were delivered before.
  ClaimCheck(const OutboxRow& row, std::int64_t settled_id, std::int64_t rows_done,
             std::shared_ptr<const TableShape> shape, Limits limits);

  /// Appends the next parts to `batch`, at least one. True: that was the last one.
  Result<bool> read(postgres::Connection& connection, RowDecoder& decoder, const ReadLimits& limits,
                    RecordBatch& batch, std::stop_token stop);

  std::int64_t outbox_id() const { return outbox_id_; }

 private:
  struct Part {
    std::string inserted;
    std::string deleted;
    std::int64_t inserted_count = 0;
    std::int64_t deleted_count = 0;
    void add(const DeltaRow& row, ColumnOrder& order);
    void clear();
    std::size_t bytes() const { return inserted.size() + deleted.size(); }
  };
  enum class Fetched { all, cut, too_few };

  Result<Fetched> fetch(postgres::Connection& connection, RowDecoder& decoder,
                        const ReadLimits& limits, std::int64_t rows, RecordBatch& batch,
                        std::stop_token stop);
  void finish_part(RecordBatch& batch, bool final);
  void pass_missing(RecordBatch& batch, std::int64_t last, bool final);
  Record& append(RecordBatch& batch, bool final);
  std::int64_t rows_to_ask(const ReadLimits& limits) const;

  const std::shared_ptr<const TableShape> shape_;
  const std::int64_t outbox_id_;
  const std::int64_t settled_id_;
  const std::int64_t expected_;
  const std::int64_t max_record_bytes_;
  const std::string pgt_id_;
  const std::string refresh_id_;
  const std::string headers_;
  const std::string refresh_mode_;
  const Timestamp created_at_;
  const std::int64_t refresh_duration_ms_;
  const bool full_refresh_;
  DeltaCutter cutter_;
  std::int64_t rows_done_;
  std::size_t mean_row_bytes_ = 256;
  Part part_;
  bool part_refused_ = false;
  std::size_t batch_bytes_ = 0;
};

}  // namespace relay::outbox
