#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

namespace relay {

/// What a source has read and the pipeline has not settled: a receipt for each record, by which the
/// source tells its broker. Records are numbered 1, 2, ... in the order of reading, over all
/// connections, and are settled in this order. Pure; the caller locks.
template <class Receipt>
class Unsettled {
 public:
  /// The next record came with this receipt; its number.
  std::int64_t add(Receipt receipt) {
    receipts_.push_back(std::move(receipt));
    return first_ + static_cast<std::int64_t>(receipts_.size()) - 1;
  }

  /// Takes the oldest receipt out where everything up to and including `number` is settled. Null:
  /// no more records are settled by that.
  std::optional<Receipt> take(std::int64_t number) {
    if (count_up_to(number) == 0) return std::nullopt;
    std::optional<Receipt> receipt(std::move(receipts_.front()));
    receipts_.pop_front();
    ++first_;
    return receipt;
  }

  /// How many records up to and including `number` have a receipt here: the first ones.
  std::size_t count_up_to(std::int64_t number) const {
    if (number < first_) return 0;
    return std::min(receipts_.size(), static_cast<std::size_t>(number - first_) + 1);
  }

  /// The connection is gone: what was not settled will come again, with other numbers.
  void forget() {
    first_ += static_cast<std::int64_t>(receipts_.size());
    receipts_.clear();
  }

  std::size_t size() const { return receipts_.size(); }
  bool empty() const { return receipts_.empty(); }
  /// Oldest first.
  auto begin() { return receipts_.begin(); }
  auto end() { return receipts_.end(); }
  auto begin() const { return receipts_.begin(); }

 private:
  std::int64_t first_ = 1;  // number of the first receipt
  std::deque<Receipt> receipts_;
};

}  // namespace relay
