#include "outbox/page_size.h"

#include <algorithm>

namespace relay::outbox {

namespace {

// Rows that are left unread are cheaper to take than to cancel up to here.
constexpr std::size_t kDrainBytes = 256u << 10;
constexpr std::int64_t kUnlimitedBeyond = 100000;
constexpr std::int64_t kGrowth = 4;

}  // namespace

std::int64_t PageSize::rows(const ReadLimits& limits) const {
  const std::size_t fitting = limits.bytes / std::max<std::size_t>(mean_row_bytes_, 1) + 1;
  auto rows = static_cast<std::int64_t>(std::clamp<std::size_t>(limits.records, 1, fitting));
  if (most_ > 0) rows = std::min(rows, most_);
  return std::max<std::int64_t>(rows, 1);
}

void PageSize::learn(std::int64_t rows, std::size_t bytes) {
  if (rows == 0 || bytes == 0) return;
  mean_row_bytes_ = (mean_row_bytes_ + bytes / static_cast<std::size_t>(rows)) / 2 + 1;
}

void PageSize::met_gap(const ReadLimits& limits) {
  const auto one_batch = static_cast<std::int64_t>(limits.records);
  most_ = most_ > 0 ? std::min(most_, one_batch) : one_batch;
}

void PageSize::filled() {
  most_ = most_ > kUnlimitedBeyond ? 0 : most_ * kGrowth;
}

std::size_t PageSize::worth_taking(std::int64_t left, std::int64_t rows, std::size_t bytes) const {
  const std::size_t mean = bytes / static_cast<std::size_t>(rows) + mean_row_bytes_;
  const std::size_t most = kDrainBytes / mean;
  // One row more than there should be: the statement then tells that it has ended.
  return static_cast<std::size_t>(left) <= most ? most + 1 : 0;
}

}  // namespace relay::outbox
