#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>

#include "connector/source.h"
#include "core/mutex.h"
#include "postgres/connection.h"
#include "stream/backlog_reader.h"
#include "stream/maintenance.h"
#include "stream/options.h"
#include "stream/receiver.h"
#include "stream/stream_state.h"

namespace relay::stream {

/// The events of a stream of postgres-stream: those that triggers of its subscriptions wrote, in
/// the order of commits.
class StreamSource final : public Source {
 public:
  explicit StreamSource(StreamOptions options);
  ~StreamSource() override;

  Result<void> open(std::stop_token) override;
  Result<RecordBatch> read(const ReadLimits&, Deadline, std::stop_token) override;
  Result<void> acknowledge(const Position& settled,
                           std::span<const DeadLetter> dead_letters) override;
  std::optional<std::int64_t> lag() override;
  std::optional<EndReport> report() const override;
  void close() override;

 private:
  /// A batch that was handed out.
  struct Underway {
    Position last;
    std::int64_t events;
  };
  /// What is read of the backlog.
  struct Backlog {
    Cursor cursor;
    std::int64_t end = 0;
    std::int64_t connection = 0;  ///< `StreamState::connections` by then
  };
  const StreamOptions options_;
  mutable StreamState state_;
  Receiver receiver_;
  Maintenance maintenance_;
  std::jthread receiving_;
  std::jthread maintaining_;
  std::unique_ptr<postgres::Connection> session_;
  std::int64_t session_for_ = 0;  ///< the `Backlog::connection` that it was opened for
  std::optional<BacklogReader> backlog_;
  SteadyClock::time_point taken_at_{};  ///< when the last batch was taken out of the queue
  std::deque<Underway> underway_ RELAY_GUARDED_BY(state_.mutex);

  Result<void> read_backlog(const Backlog& from, const ReadLimits&, RecordBatch&, Deadline,
                            std::stop_token);
};

}  // namespace relay::stream
