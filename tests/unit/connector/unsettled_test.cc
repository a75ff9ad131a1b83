#include "connector/unsettled.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace relay {
namespace {

using Texts = std::vector<std::string>;

Texts settle(Unsettled<std::string>& unsettled, std::int64_t number) {
  Texts settled;
  while (auto receipt = unsettled.take(number)) settled.push_back(std::move(*receipt));
  return settled;
}

TEST(Unsettled, NumbersRecordsFromOneAndSettlesThemInOrder) {
  Unsettled<std::string> unsettled;
  EXPECT_EQ(unsettled.add("a"), 1);
  EXPECT_EQ(unsettled.add("b"), 2);
  EXPECT_EQ(unsettled.add("c"), 3);
  EXPECT_EQ(settle(unsettled, 2), (Texts{"a", "b"}));
  EXPECT_EQ(settle(unsettled, 2), Texts{});
  EXPECT_EQ(unsettled.size(), 1u);
  EXPECT_EQ(settle(unsettled, 100), Texts{"c"});
  EXPECT_TRUE(unsettled.empty());
}

TEST(Unsettled, WhatWasForgottenIsNeverSettledAndItsNumbersAreNotGivenAgain) {
  Unsettled<std::string> unsettled;
  unsettled.add("a");
  unsettled.add("b");
  unsettled.forget();
  EXPECT_TRUE(unsettled.empty());
  EXPECT_EQ(unsettled.add("a again"), 3);
  EXPECT_EQ(settle(unsettled, 2), Texts{});
  EXPECT_EQ(settle(unsettled, 3), Texts{"a again"});
}

TEST(Unsettled, CountsWhatWouldBeSettledAndKeepsIt) {
  Unsettled<std::string> unsettled;
  for (const char* receipt : {"a", "b", "c"}) unsettled.add(receipt);
  settle(unsettled, 1);
  EXPECT_EQ(unsettled.count_up_to(0), 0u);
  EXPECT_EQ(unsettled.count_up_to(1), 0u);
  EXPECT_EQ(unsettled.count_up_to(2), 1u);
  EXPECT_EQ(unsettled.count_up_to(100), 2u);
  EXPECT_EQ(*unsettled.begin(), "b");
  EXPECT_EQ(unsettled.size(), 2u);
}

TEST(Unsettled, SettlesEachReceiptOnceWhateverIsAskedFor) {
  rc::check([](const std::vector<bool>& adds) {
    Unsettled<std::int64_t> unsettled;
    std::int64_t read = 0;
    std::int64_t settled = 0;
    for (const bool add : adds) {
      if (add) {
        ++read;
        RC_ASSERT(unsettled.add(read) == read);
        continue;
      }
      const auto upto = *rc::gen::inRange<std::int64_t>(0, read + 2);
      while (const auto receipt = unsettled.take(upto)) RC_ASSERT(*receipt == ++settled);
      RC_ASSERT(settled >= std::min(upto, read));
      RC_ASSERT(static_cast<std::int64_t>(unsettled.size()) == read - settled);
    }
  });
}

}  // namespace
}  // namespace relay
