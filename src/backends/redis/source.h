#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/redis/connection.h"
#include "backends/redis/entry_count.h"
#include "backends/redis/event.h"
#include "backends/redis/options.h"
#include "backends/redis/receipts.h"
#include "connector/source.h"

namespace relay::redis {

/// Reads a stream as a member of a consumer group. An entry is acknowledged only when `acknowledge`
/// says that it is settled. What was read and not acknowledged comes again: to the same consumer
/// when it connects anew, to another one when it has been idle for `claim_idle`, which begins anew
/// again and again while this consumer has it in work.
///
/// Reading and acknowledging have a connection each, since they are of two threads.
class RedisSource : public Source {
 public:
  RedisSource(SourceOptions options, EventRules rules, FieldMapping mapping)
      : options_(std::move(options)), rules_(std::move(rules)), mapping_(std::move(mapping)) {}

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::chrono::milliseconds tend(std::stop_token stop) override;
  std::optional<std::int64_t> lag() override { return lag_; }
  bool lag_may_be_withheld() const override { return true; }
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  Result<void> connect(int stop_fd);
  Result<void> make_group(int stop_fd);
  Result<void> read_some(RecordBatch& batch, std::size_t count, std::chrono::milliseconds wait,
                         int stop_fd);
  Result<void> claim_some(RecordBatch& batch, std::size_t count, int stop_fd);
  void look_after(int stop_fd);
  Result<void> keep_ours(int stop_fd);
  Result<void> remove_consumers(int stop_fd);
  Result<bool> keep_some(std::string& begin, int stop_fd);
  bool cannot_keep(const Reply& reply);
  std::chrono::milliseconds wait_for(Deadline deadline) const;
  Result<void> ask_lag(int stop_fd);
  Result<void> mark_stream(int stop_fd);
  Result<std::string> find_mark(int stop_fd);
  Result<std::optional<std::int64_t>> count_beyond(const std::string& last_delivered, int stop_fd);
  Result<Reply> call(std::span<const std::string_view> command, int stop_fd,
                     std::chrono::milliseconds wait = {});
  Result<Reply> call(std::initializer_list<std::string_view> command, int stop_fd,
                     std::chrono::milliseconds wait = {}) {
    return call(std::span(command.begin(), command.size()), stop_fd, wait);
  }
  Result<Reply> call_marked(std::initializer_list<std::string_view> command, int stop_fd,
                            std::chrono::milliseconds wait = {});
  std::string add_entries(RecordBatch& batch, const Reply& entries);
  void add(RecordBatch& batch, const Reply& entry);
  std::size_t count_for(const ReadLimits& limits) const;
  Result<void> send_acknowledgements(std::span<const std::string> entries);

  const SourceOptions options_;
  const EventRules rules_;
  const FieldMapping mapping_;
  Receipts receipts_;
  std::shared_ptr<const TableShape> shape_;

  // Of the reader's thread.
  EndpointWalk endpoints_;
  std::unique_ptr<Connection> connection_;
  std::string incarnation_;             // of the stream; empty: it cannot be known
  std::optional<std::string> history_;  // where to go on among what this consumer took before
  std::string claim_cursor_;
  SteadyClock::time_point claim_due_{};
  bool can_claim_ = true;
  SteadyClock::time_point keep_due_{};
  bool can_keep_ = true;
  SteadyClock::time_point remove_due_{};
  bool can_remove_ = true;
  std::size_t largest_ = 0;  // of the entries read of late, in bytes; 0: none yet
  std::optional<std::int64_t> lag_;
  SteadyClock::time_point lag_due_{};
  EntryCount beyond_;

  // Of the thread that acknowledges.
  EndpointWalk ack_endpoints_;
  std::unique_ptr<Connection> ack_connection_;
};

}  // namespace relay::redis
