#include "stream/transaction_ledger.h"

#include <algorithm>

namespace relay::stream {

using postgres::Lsn;

void TransactionLedger::received(const Transaction& transaction) {
  if (open_.empty()) before_open_ = passed_;
  open_.push_back(transaction);
  passed(transaction.end);
}

void TransactionLedger::passed(Lsn end) {
  passed_ = std::max(passed_, end);
}

void TransactionLedger::account(std::int64_t n) {
  while (!open_.empty() && open_.front().n <= n) {
    before_open_ = open_.front().end;
    accounted_.push_back({open_.front().xid, open_.front().end});
    open_.pop_front();
  }
}

Lsn TransactionLedger::accounted_to() const {
  return open_.empty() ? passed_ : before_open_;
}

std::vector<Xid> TransactionLedger::accounted_behind(Lsn place) const {
  std::vector<Xid> xids;
  for (const Accounted& one : accounted_) {
    if (one.end > place) xids.push_back(one.xid);
  }
  return xids;
}

void TransactionLedger::forget_up_to(Lsn place) {
  while (!accounted_.empty() && accounted_.front().end <= place) accounted_.pop_front();
}

}  // namespace relay::stream
