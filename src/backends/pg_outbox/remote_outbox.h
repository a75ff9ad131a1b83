#pragma once

#include <memory>
#include <string>

#include "backends/pg_outbox/options.h"
#include "connector/registry.h"
#include "connector/source.h"
#include "connector/wake.h"
#include "outbox/outbox_source.h"
#include "postgres/pool.h"

namespace relay::pg_outbox {

/// Reads an outbox of another database, by the reader of the relay's own outboxes and with all that
/// it promises. The position is kept in that other database, where retention has to know who still
/// needs which rows; dead letters stay in the relay's own. The sweep does not watch it,
/// so it is asked for news every `poll_interval`.
///
/// Threads as for Source.
class RemoteOutbox final : public Source {
 public:
  RemoteOutbox(Options options, BackendContext context);
  ~RemoteOutbox() override;

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter> letters) override;
  Result<RecordBatch> read_range(std::int64_t from, std::int64_t to, const std::string& suffix,
                                 const ReadLimits& limits, std::stop_token stop) override;
  std::optional<std::int64_t> lag() override;
  bool more_to_come() const override;
  void close() override;
  Inspection inspect(std::stop_token stop) override;

 private:
  Result<void> make_reader(std::stop_token stop);

  const Options options_;
  const BackendContext context_;
  postgres::Pool pool_;
  const std::shared_ptr<Wake> wake_;
  std::unique_ptr<outbox::OutboxSource> reader_;  // made once it is known whose position it is
};

/// What tells this relay's positions in another database from those of others: its group, and which
/// database it belongs to.
Result<std::string> position_group(postgres::Pool* database, const std::string& group,
                                   std::stop_token stop);

}  // namespace relay::pg_outbox
