#include "cli/live_rows.h"

#include <gtest/gtest.h>

namespace relay::cli {
namespace {

using Fate = LiveRows::Fate;

class LiveRowsTest : public testing::Test {
 protected:
  void take(std::string_view message) { rows.take(message, now, wall); }
  void later() {
    now += std::chrono::seconds(2);
    rows.settle(now);
  }
  std::vector<std::vector<std::string>> cells() const { return rows.cells(rows.names()); }

  using Table = std::vector<std::vector<std::string>>;
  SteadyClock::time_point now = SteadyClock::time_point(std::chrono::hours(1));
  Timestamp wall{std::chrono::seconds(1777284903)};
  LiveRows rows{3};
};

TEST_F(LiveRowsTest, ShowsRowsWithTheirDigits) {
  take(R"({"delta":{"inserted":[{"id":1,"n":1.50,"t":null,"o":{"a":1}}],"deleted":[]}})");
  EXPECT_EQ(rows.names(), (std::vector<std::string>{"id", "n", "t", "o"}));
  EXPECT_EQ(cells(), (Table{{"1", "1.50", "", "{\"a\":1}"}}));
  EXPECT_EQ(rows.fate(0), Fate::came);
  later();
  EXPECT_EQ(rows.fate(0), Fate::present);
}

TEST_F(LiveRowsTest, AChangedRowKeepsItsPlace) {
  take(R"({"delta":{"inserted":[{"id":1,"n":1},{"id":2,"n":2}],"deleted":[]}})");
  take(R"({"delta":{"deleted":[{"id":1,"n":1}],"inserted":[{"id":1,"n":5}]}})");
  EXPECT_EQ(cells(), (Table{{"1", "5"}, {"2", "2"}}));
  // The order of the two lists does not matter.
  take(R"({"delta":{"inserted":[{"id":2,"n":7}],"deleted":[{"id":2,"n":2}]}})");
  EXPECT_EQ(cells(), (Table{{"1", "5"}, {"2", "7"}}));
}

TEST_F(LiveRowsTest, ARowThatIsGoneDisappears) {
  take(R"({"op":"insert","key":{"id":1},"new":{"id":1,"n":1},"old":null})");
  take(R"({"op":"delete","key":{"id":1},"new":null,"old":{"id":1,"n":1}})");
  EXPECT_EQ(rows.fate(0), Fate::gone);
  later();
  EXPECT_EQ(cells(), Table());
}

TEST_F(LiveRowsTest, AMessageThatIsSentAgainAddsNoRow) {
  for (int i = 0; i < 2; ++i) take(R"({"op":"insert","key":{"id":1},"new":{"id":1},"old":null})");
  EXPECT_EQ(cells(), (Table{{"1"}}));
}

TEST_F(LiveRowsTest, AFullRefreshReplacesAll) {
  take(R"({"delta":{"inserted":[{"id":1}],"deleted":[]}})");
  take(R"({"delta":{"inserted":[{"id":2}],"deleted":[]},"metadata":{"full_refresh":true}})");
  EXPECT_EQ(cells(), (Table{{"2"}}));
}

TEST_F(LiveRowsTest, UnderstandsDebeziumAndCloudEvents) {
  take(R"({"before":null,"after":{"id":1},"source":{"table":"orders"},"op":"c"})");
  take(R"({"specversion":"1.0","data":{"op":"insert","key":{"id":2},"new":{"id":2}}})");
  EXPECT_EQ(cells(), (Table{{"1"}, {"2"}}));
}

TEST_F(LiveRowsTest, AnythingElseIsARowOfItsOwn) {
  take(R"({"invoice":42})");
  take("no JSON");
  take("{\"broken\": ");
  take("[1, 2]");
  EXPECT_EQ(cells().size(), 3u);  // the oldest is forgotten
  EXPECT_EQ(rows.messages(), 4u);
}

TEST_F(LiveRowsTest, TellsRateAndLatency) {
  EXPECT_LT(rows.median_latency_ms(), 0);
  take(R"({"timestamp":"2026-04-27T10:15:02.500Z","delta":{"inserted":[],"deleted":[]}})");
  EXPECT_NEAR(rows.median_latency_ms(), 500, 1);
  EXPECT_NEAR(rows.rate(now), 0.2, 0.001);
  now += std::chrono::seconds(10);
  EXPECT_EQ(rows.rate(now), 0);
}

}  // namespace
}  // namespace relay::cli
