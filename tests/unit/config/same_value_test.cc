#include "config/same_value.h"

#include <gtest/gtest.h>

namespace relay::config {
namespace {

bool same(std::string_view one, std::string_view other) {
  return same_value(*parse_json(one, ""), *parse_json(other, ""));
}

TEST(SameValue, NumbersAreComparedByWhatTheyAre) {
  EXPECT_TRUE(same("1", "1.0"));
  EXPECT_TRUE(same("1.0", "1"));
  EXPECT_TRUE(same("[1, 0.5]", "[1.0, 0.50]"));
  EXPECT_TRUE(same(R"({"a": 1, "b": 2})", R"({"b": 2.0, "a": 1})"));
  EXPECT_FALSE(same("1", "1.5"));
  EXPECT_FALSE(same("9007199254740993", "9007199254740992"));
}

TEST(SameValue, ValuesOfDifferentTypesAreDifferent) {
  EXPECT_FALSE(same("1", R"("1")"));
  EXPECT_FALSE(same("1", "true"));
  EXPECT_FALSE(same("[1]", "1"));
  EXPECT_FALSE(same("[1]", "[1, 1]"));
  EXPECT_FALSE(same(R"({"a": 1})", R"({"b": 1})"));
  EXPECT_FALSE(same(R"({"a": 1})", R"({"a": 1, "b": 1})"));
  EXPECT_FALSE(same("null", "{}"));
}

}  // namespace
}  // namespace relay::config
