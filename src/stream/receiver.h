#pragma once

#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "postgres/pgoutput.h"
#include "postgres/replication.h"
#include "stream/assembler.h"
#include "stream/decoding_failures.h"
#include "stream/options.h"
#include "stream/settled_snapshot.h"
#include "stream/store.h"
#include "stream/stream_state.h"

namespace relay::stream {

/// Receives the events of a stream from its replication slot, and tells the server what it may
/// forget. Connects again after every error. `run` is a thread's body.
class Receiver {
 public:
  Receiver(const StreamOptions& options, StreamState& state) : options_(options), state_(state) {}

  void run(std::stop_token stop);

 private:
  const StreamOptions& options_;
  StreamState& state_;
  std::unique_ptr<postgres::Connection> session_;
  std::optional<Store> store_;
  std::unique_ptr<postgres::ReplicationConnection> log_;
  std::optional<postgres::pgoutput::Decoder> decoder_;
  std::optional<Assembler> assembler_;
  SettledSnapshot snapshot_;
  DecodingFailures decoding_failures_;
  SteadyClock::time_point tended_at_{};
  SteadyClock::time_point recorded_at_{};
  SteadyClock::time_point reported_at_{};
  SteadyClock::time_point removed_at_{};
  SteadyClock::time_point stored_at_{};
  SteadyClock::time_point watched_at_{};
  postgres::Lsn reported_;
  postgres::Lsn stored_;       ///< what was confirmed last, as the stream's row says it
  std::int64_t timeline_ = 0;  ///< of what is in memory
  bool must_load_ = true;      ///< what is in memory may not be what is stored
  std::string slot_;
  bool failover_ = false;  ///< standbys may synchronise the slot

  Result<void> connect(std::stop_token stop);
  Result<void> load(std::stop_token stop);
  std::int64_t received_n() const RELAY_REQUIRES(state_.mutex);
  Result<void> receive(std::stop_token stop);
  Error of_log(Error error);
  Result<void> take(const postgres::ReplicationConnection::Event& event, bool& must_report);
  Result<void> decode(std::string_view message);
  bool wait_for_room(std::stop_token stop);
  Result<void> tend(bool must_report, std::stop_token stop);
  Result<void> record(SteadyClock::time_point now, std::stop_token stop);
  Result<void> remove(SteadyClock::time_point now, std::stop_token stop);
  Result<void> move_snapshot(SteadyClock::time_point now, std::stop_token stop);
  Result<void> report(SteadyClock::time_point now, bool must, std::stop_token stop);
  Result<void> store(postgres::Lsn accounted, SteadyClock::time_point now, std::stop_token stop);
  Result<void> watch_standbys(SteadyClock::time_point now, std::stop_token stop);
  void finish();
  void tell(std::optional<Error> trouble);
};

}  // namespace relay::stream
