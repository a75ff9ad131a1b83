#include "envelope/change_pairing.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "envelope/rows.h"

namespace relay::envelope {
namespace {

using Lines = std::vector<std::string>;

const std::vector<std::string> kKey = {"id"};
const std::vector<std::string> kTwoColumns = {"id", "shop"};

Lines described(std::span<const Change> changes) {
  Lines lines;
  for (const Change& change : changes) lines.push_back(described(change));
  return lines;
}

Lines delta(TestRows rows, std::size_t deleted, bool refresh = false,
            const std::vector<std::string>& key = kKey) {
  ChangePairing pairing;
  return described(pairing.of_delta(*rows, deleted, refresh, key));
}

Lines update(TestRows rows, const std::vector<std::string>& key = kKey) {
  ChangePairing pairing;
  return described(pairing.of_row_change(*rows, {Op::update, 0, 1, 0, false}, key));
}

TEST(ChangePairing, MakesTwoRowsOfOneKeyAnUpdate) {
  EXPECT_EQ(delta({R"({"id":1})", R"({"id":2})", R"({"id":3})", R"({"id":1.0})"}, 2),
            (Lines{"update 0 3", "delete 1 -", "insert - 2"}));
}

TEST(ChangePairing, PairsNoRowsWhoseKeyIsUnknownOrNotUnique) {
  EXPECT_EQ(delta({R"({"v":1})", R"({"v":1})"}, 1), (Lines{"delete 0 -", "insert - 1"}));
  EXPECT_EQ(delta({R"({"id":1})", R"({"id":1})", R"({"id":1})"}, 1),
            (Lines{"delete 0 -", "insert - 1", "insert - 2"}));
  EXPECT_EQ(delta({R"({"id":1})", R"({"id":1})"}, 1, false, {}),
            (Lines{"delete 0 -", "insert - 1"}));
}

TEST(ChangePairing, MakesEachRowOfARefreshARowOfTheNewState) {
  EXPECT_EQ(delta({R"({"id":1})", R"({"id":1})"}, 0, true), (Lines{"refresh - 0", "refresh - 1"}));
  EXPECT_EQ(delta({R"({"id":1})", R"({"id":1})"}, 1, true), (Lines{"refresh 0 -", "refresh - 1"}));
}

TEST(ChangePairing, SplitsAnUpdateThatChangesTheKey) {
  EXPECT_EQ(update({R"({"id":1})", R"({"id":1.0})"}), (Lines{"update 0 1"}));
  EXPECT_EQ(update({R"({"id":1})", R"({"id":2})"}),
            (Lines{"delete 0 - moved", "insert - 1 moved"}));
  EXPECT_EQ(update({R"({"id":1,"shop":1})", R"({"id":1,"shop":2})"}, kTwoColumns),
            (Lines{"delete 0 - moved", "insert - 1 moved"}));
}

TEST(ChangePairing, TakesAnOldRowWithoutItsKeyForTheSameRow) {
  EXPECT_EQ(update({R"({"v":1})", R"({"id":2})"}), (Lines{"update 0 1"}));
  EXPECT_EQ(update({R"({"id":1})", R"({"id":2,"shop":2})"}, kTwoColumns), (Lines{"update 0 1"}));
  EXPECT_EQ(update({R"({"id":1})", R"({"id":2})"}, {}), (Lines{"update 0 1"}));
}

TEST(ChangePairing, LeavesOtherChangesAsTheSourceReportsThem) {
  ChangePairing pairing;
  TestRows rows{R"({"id":1})", R"({"id":2})"};
  const Change update_without_old_row{Op::update, kNoRow, 1, 0, false};
  const Change refresh{Op::refresh, 0, 1, 0, false};
  const Change no_row{Op::refresh, kNoRow, kNoRow, 0, false};
  EXPECT_EQ(described(pairing.of_row_change(*rows, update_without_old_row, kKey)),
            (Lines{"update - 1"}));
  EXPECT_EQ(described(pairing.of_row_change(*rows, refresh, kKey)), (Lines{"refresh 0 1"}));
  EXPECT_EQ(described(pairing.of_row_change(*rows, no_row, kKey)), Lines{});
}

TEST(ChangePairing, KnowsADeltaOfUpdatesAlone) {
  ChangePairing pairing;
  TestRows updates{R"({"id":1})", R"({"id":2})", R"({"id":2})", R"({"id":1})"};
  TestRows others{R"({"id":1})", R"({"id":3})", R"({"id":2})", R"({"id":1})"};
  EXPECT_TRUE(pairing.all_updates(*updates, 2, kKey));
  EXPECT_FALSE(pairing.all_updates(*others, 2, kKey));
}

}  // namespace
}  // namespace relay::envelope
