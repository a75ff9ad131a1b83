#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <utility>

#include "core/arena.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/mutex.h"
#include "outbox/row_decoder.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// The rows that one statement brings, one by one, in order of id. They may come while those before
/// them are worked on. One thread at a time.
class RowStream {
 public:
  /// Sends a statement for the rows with `beyond` < id <= `to`, at most `rows`; `last` is the row
  /// that was read before them, and `history` what it was read from (PositionFacts; empty: any).
  /// The decoder must live as long as the stream is read.
  static Result<RowStream> send(postgres::Lease lease, RowDecoder& decoder, std::int64_t beyond,
                                std::int64_t to, std::int64_t rows, const Position& last,
                                const std::string& history);

  /// Waits for the next row. False: there is none.
  Result<bool> next(std::stop_token stop);
  /// The row that `next` has found, with what its record needs copied into `arena`. Once for each
  /// row: the server's own copy, which may be large, is freed.
  Result<OutboxRow> row(Arena& arena) {
    const auto result = std::exchange(result_, nullptr);
    return decoder_->decode_row(result.get(), arena);
  }
  /// How many rows may still come.
  std::int64_t left() const { return left_; }

  /// The rows that are left are not needed: takes so many of them, in case there are no more, and
  /// cancels the statement otherwise.
  void leave(std::size_t worth_taking);
  void cancel(Deadline deadline) { lease_->abandon(deadline); }

  postgres::Connection& connection() { return *lease_; }
  /// The connection, once the stream has ended or was left.
  postgres::Lease take_lease() { return std::move(lease_); }
  SteadyClock::time_point sent_at() const { return sent_at_; }

 private:
  RowStream(postgres::Lease lease, RowDecoder& decoder, std::int64_t rows)
      : lease_(std::move(lease)), decoder_(&decoder), left_(rows) {}

  postgres::Lease lease_;
  RowDecoder* decoder_;
  postgres::PgResult result_;
  std::int64_t left_;
  SteadyClock::time_point sent_at_ = SteadyClock::now();
};

/// Keeps a stream between two batches, and gives its connection back where another pipeline waits
/// for one: its rows are then read by another statement. The pool must outlive it. One thread at a
/// time; the pool asks for the connection from any.
class StreamKeeper final : private postgres::Keeper {
 public:
  StreamKeeper(postgres::Pool& pool, postgres::Code code);
  ~StreamKeeper() override;
  StreamKeeper(const StreamKeeper&) = delete;
  StreamKeeper& operator=(const StreamKeeper&) = delete;

  void keep(RowStream stream) RELAY_EXCLUDES(mutex_);
  /// The stream that is kept, if it is there still.
  std::optional<RowStream> take() RELAY_EXCLUDES(mutex_);
  /// Cancels what is kept.
  void drop();

 private:
  postgres::Code code() const override { return code_; }
  void give_back(std::chrono::milliseconds unused, Deadline deadline) override
      RELAY_EXCLUDES(mutex_);

  postgres::Pool& pool_;
  const postgres::Code code_;
  Mutex mutex_;
  std::optional<RowStream> kept_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::outbox
