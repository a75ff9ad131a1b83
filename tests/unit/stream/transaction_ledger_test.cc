#include "stream/transaction_ledger.h"

#include <gtest/gtest.h>

#include <vector>

namespace relay::stream {
namespace {

using postgres::Lsn;

TransactionLedger ledger_of(std::int64_t count) {
  TransactionLedger ledger;
  ledger.passed(Lsn{95});
  for (std::int64_t n = 1; n <= count; ++n) {
    const auto end = static_cast<std::uint64_t>(100 + 10 * (n - 1));
    ledger.received({n, static_cast<Xid>(n + 500), Lsn{end}, 1, {}});
  }
  return ledger;
}

TEST(TransactionLedger, TheServerKeepsWhatIsNotAccountedFor) {
  auto ledger = ledger_of(3);
  EXPECT_EQ(ledger.accounted_to(), Lsn{95});
  EXPECT_EQ(ledger.held(), 25U);
  ledger.account(2);
  EXPECT_EQ(ledger.accounted_to(), Lsn{110});
  ledger.passed(Lsn{500});
  EXPECT_EQ(ledger.accounted_to(), Lsn{110});
  EXPECT_EQ(ledger.held(), 390U);
  ledger.account(3);
  EXPECT_EQ(ledger.accounted_to(), Lsn{500});
  EXPECT_EQ(ledger.held(), 0U);
}

TEST(TransactionLedger, WhatWasPassedBeforeATransactionStaysAccountedFor) {
  auto ledger = ledger_of(1);
  ledger.account(1);
  ledger.passed(Lsn{300});
  ledger.received({2, 502, Lsn{400}, 1, {}});
  EXPECT_EQ(ledger.accounted_to(), Lsn{300});
}

TEST(TransactionLedger, NamesTheAccountedTransactionsBehindAPlace) {
  auto ledger = ledger_of(4);
  ledger.account(3);
  EXPECT_EQ(ledger.accounted_behind(Lsn{100}), (std::vector<Xid>{502, 503}));
  ledger.forget_up_to(Lsn{110});
  EXPECT_EQ(ledger.accounted_behind(Lsn{110}), (std::vector<Xid>{503}));
}

}  // namespace
}  // namespace relay::stream
