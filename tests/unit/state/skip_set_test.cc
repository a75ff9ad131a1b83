#include "state/skip_set.h"

#include <gtest/gtest.h>

namespace relay::state {
namespace {

TEST(SkipSet, HoldsTheIdsOfAMultirange) {
  const auto set = SkipSet::parse("{[12,15),[20,21),[9000000000,9000000002)}");
  ASSERT_TRUE(set);
  for (const std::int64_t id : {12L, 13L, 14L, 20L, 9000000000L, 9000000001L}) {
    EXPECT_TRUE(set->contains(id)) << id;
  }
  for (const std::int64_t id : {-1L, 0L, 11L, 15L, 19L, 21L, 8999999999L, 9000000002L}) {
    EXPECT_FALSE(set->contains(id)) << id;
  }
  EXPECT_EQ(set->run_end(13), 14);
  EXPECT_EQ(set->run_end(20), 20);
  EXPECT_EQ(set->last(), 9000000001);
}

TEST(SkipSet, OfAnEmptyMultirangeIsEmpty) {
  const auto set = SkipSet::parse("{}");
  ASSERT_TRUE(set);
  EXPECT_TRUE(set->empty());
  EXPECT_EQ(set->run_end(1), 0);
  EXPECT_EQ(set->last(), 0);
}

TEST(SkipSet, RefusesWhatItDoesNotUnderstand) {
  for (const char* text : {"", "{", "}", "[1,2)", "{[1,2]}", "{(1,2)}", "{[1,2)", "{[1,2),}",
                           "{[1,2)[3,4)}", "{[1,)}", "{[,2)}", "{[2,2)}", "{[5,6),[1,2)}",
                           "{[1,4),[3,6)}", "{[1,2)} ", "{[a,2)}", "{[1,99999999999999999999)}"}) {
    EXPECT_FALSE(SkipSet::parse(text)) << text;
  }
}

}  // namespace
}  // namespace relay::state
