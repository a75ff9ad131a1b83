#pragma once

#include <cstddef>
#include <cstdint>

#include "connector/source.h"

namespace relay::outbox {

/// How many rows a statement asks for, as those that came before suggest. Pure: no I/O, no clock.
class PageSize {
 public:
  /// For a statement that is to bring no more than the limits say, one row at least.
  std::int64_t rows(const ReadLimits& limits) const;

  /// So many rows came, and so many bytes with them.
  void learn(std::int64_t rows, std::size_t bytes);
  /// The page ended with a claim check, which is read by statements of its own: few rows are asked
  /// for behind it, and more and more while no other claim check comes (`filled`).
  void met_claim_check() { most_ = kAfterClaimCheck; }
  /// Gaps come together: while they do, a statement is for one batch.
  void met_gap(const ReadLimits& limits);
  /// All rows that were asked for came.
  void filled();

  /// `left` rows of a statement will not be used. How many of them to take until the statement is
  /// cancelled; 0: cancelling it at once is cheaper. `rows` (at least 1) and `bytes` came so far.
  std::size_t worth_taking(std::int64_t left, std::int64_t rows, std::size_t bytes) const;

 private:
  static constexpr std::int64_t kAfterClaimCheck = 8;

  std::int64_t most_ = 0;  // 0: only the limits count
  std::size_t mean_row_bytes_ = 512;
};

}  // namespace relay::outbox
