#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/dead_letter_queue.h"
#include "core/deadline.h"
#include "core/error.h"
#include "postgres/pool.h"
#include "state/dead_letter_statements.h"

namespace relay::state {

/// Stores dead letters over a given connection, in its transaction where one is open. A message
/// that lies there unresolved is not stored twice: its attempts are counted.
Result<void> store_dead_letters(postgres::Connection& connection, const DeadLetterStatements& sql,
                                const std::string& group, const std::string& pipeline,
                                std::span<const DeadLetter> letters, Deadline deadline,
                                std::stop_token stop);

/// The dead letters of one pipeline in one table. One thread at a time.
class DeadLetterTable final : public DeadLetterQueue {
 public:
  /// `sql` says which table; pool and statements outlive this.
  DeadLetterTable(postgres::Pool& pool, const DeadLetterStatements& sql, std::string group,
                  std::string pipeline);

  Result<void> store(std::span<const DeadLetter> letters) override;
  /// May be fewer than `limit` although there are more: those of 8 MiB together, one at least. None
  /// left: it is empty.
  Result<std::vector<DeadLetter>> take_retries(std::size_t limit) override;
  Result<void> resolve(std::int64_t dlq_id) override;
  Result<void> failed_again(std::int64_t dlq_id, const Error& error) override;
  Result<std::set<std::string>> parked_keys() override;

 private:
  Result<postgres::Rows> run(std::string_view sql, std::initializer_list<postgres::Param> params);

  postgres::Pool& pool_;
  const DeadLetterStatements& sql_;
  const std::string group_;
  const std::string pipeline_;
};

}  // namespace relay::state
