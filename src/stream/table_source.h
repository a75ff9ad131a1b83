#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>

#include "connector/source.h"
#include "core/mutex.h"
#include "postgres/connection.h"
#include "stream/maintenance.h"
#include "stream/options.h"
#include "stream/rounds.h"
#include "stream/store.h"

namespace relay::stream {

/// The events of a stream, read from the table: for a server without logical replication, or a role
/// without REPLICATION. They come in the order in which each row was changed.
class TableSource final : public Source {
 public:
  explicit TableSource(StreamOptions options);
  ~TableSource() override;

  Result<void> open(std::stop_token) override;
  Result<RecordBatch> read(const ReadLimits&, Deadline, std::stop_token) override;
  std::chrono::milliseconds tend(std::stop_token) override;
  Result<void> acknowledge(const Position& settled,
                           std::span<const DeadLetter> dead_letters) override;
  std::optional<std::int64_t> lag() override;
  void close() override;

 private:
  const StreamOptions options_;
  Maintenance maintenance_;
  std::jthread maintaining_;
  std::unique_ptr<postgres::Connection> session_;
  std::optional<Store> store_;
  std::unique_ptr<postgres::Connection> rows_;  ///< the session of the statement
  bool under_way_ = false;                      ///< a statement brings rows
  SteadyClock::time_point used_at_{};
  SteadyClock::time_point kept_at_{};
  Rounds::Place kept_;
  Mutex mutex_;
  std::optional<Rounds> rounds_ RELAY_GUARDED_BY(mutex_);

  bool is_open() const { return session_ && session_->ok() && rows_->ok(); }
  Result<void> try_open(std::stop_token);
  Result<void> begin(std::stop_token);
  Result<void> read_rows(const ReadLimits&, RecordBatch& batch, std::stop_token);
  void abandon();
  Result<void> keep(std::chrono::milliseconds every, std::stop_token);
};

}  // namespace relay::stream
