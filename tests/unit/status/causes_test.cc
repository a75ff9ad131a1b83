#include "status/causes.h"

#include <gtest/gtest.h>

namespace relay::status {
namespace {

using std::chrono::seconds;

const auto kWall = std::chrono::system_clock::time_point(std::chrono::hours(1000));

Sighting seen(const std::string& pipeline, const std::string& code, bool certain = false,
              const std::string& message = "it hurts") {
  return {pipeline, "", {ErrorClass::transient, code, message, "mend it", {}}, certain};
}

class CausesTest : public testing::Test {
 protected:
  /// What changed, as "+code" and "-code", at so many seconds.
  std::string look(int at, std::vector<Sighting> sightings) {
    std::string text;
    for (const auto& change : causes.look(std::move(sightings), start + seconds(at), kWall)) {
      text += (change.began ? "+" : "-") + change.sighting.error.code;
    }
    return text;
  }
  Causes causes;
  const SteadyClock::time_point start = SteadyClock::now();
};

TEST_F(CausesTest, WhatLastsIsToldOnceAndItsEndOnce) {
  for (int at = 0; at < 5; ++at) EXPECT_EQ(look(at, {seen("p", "stuck")}), "") << at;
  EXPECT_TRUE(causes.of("p").empty());
  EXPECT_EQ(look(5, {seen("p", "stuck")}), "+stuck");
  for (int at = 6; at < 60; ++at) EXPECT_EQ(look(at, {seen("p", "stuck")}), "") << at;
  ASSERT_EQ(causes.of("p").size(), 1u);
  EXPECT_EQ(causes.of("p")[0].since, kWall);
  EXPECT_TRUE(causes.of("q").empty());
  EXPECT_TRUE(causes.of("").empty());
  for (int at = 60; at < 64; ++at) EXPECT_EQ(look(at, {}), "") << at;
  EXPECT_EQ(look(64, {}), "-stuck");
  EXPECT_TRUE(causes.of("p").empty());
  EXPECT_EQ(look(65, {}), "");
}

TEST_F(CausesTest, WhatComesAndGoesIsNotTold) {
  for (int at = 0; at < 60; ++at) {
    EXPECT_EQ(look(at, at % 4 == 3 ? std::vector<Sighting>{} : std::vector{seen("p", "stuck")}), "")
        << at;
  }
}

TEST_F(CausesTest, WhatIsToldIsNotOverForAMoment) {
  look(0, {seen("p", "stuck")});
  EXPECT_EQ(look(5, {seen("p", "stuck")}), "+stuck");
  for (int at = 6; at < 60; ++at) {
    EXPECT_EQ(look(at, at % 4 != 3 ? std::vector<Sighting>{} : std::vector{seen("p", "stuck")}), "")
        << at;
  }
}

TEST_F(CausesTest, AFactIsToldAtOnceAndAnewWhenItReadsOtherwise) {
  EXPECT_EQ(look(0, {seen("p", "fact", true, "a")}), "+fact");
  EXPECT_EQ(look(1, {seen("p", "fact", true, "a")}), "");
  EXPECT_EQ(look(2, {seen("p", "fact", true, "b")}), "+fact");
  EXPECT_EQ(causes.of("p")[0].error.message, "b");
  EXPECT_EQ(look(3, {}), "-fact");
}

TEST_F(CausesTest, CausesOfSeveralPipelinesAndObjectsAreKeptApart) {
  Sighting a = seen("", "table", true);
  a.object = "a";
  Sighting b = a;
  b.object = "b";
  EXPECT_EQ(look(0, {a, b, seen("p", "table", true)}), "+table+table+table");
  EXPECT_EQ(causes.of("").size(), 2u);
  EXPECT_EQ(look(1, {b}), "-table-table");
  EXPECT_EQ(causes.of("").size(), 1u);
}

}  // namespace
}  // namespace relay::status
