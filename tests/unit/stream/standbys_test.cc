#include "stream/standbys.h"

#include <gtest/gtest.h>

namespace relay::stream {
namespace {

Standbys prepared() {
  return {"pgstream_1", 1, "b", "", "b", false};
}

Standbys none() {
  Standbys standbys;
  standbys.slot = "pgstream_1";
  return standbys;
}

TEST(Standbys, APreparedStandbyIsNoProblem) {
  EXPECT_FALSE(problem_of(prepared()));
  Standbys standbys = prepared();
  standbys.waits = true;  // for a moment, as it does for each transaction
  EXPECT_FALSE(problem_of(standbys));
}

TEST(Standbys, NoneIsNoProblem) {
  EXPECT_FALSE(problem_of(none()));
}

TEST(Standbys, AReplicaThatIsNotPreparedIsNoProblem) {
  Standbys standbys = none();
  standbys.physical = "replica";
  EXPECT_FALSE(problem_of(standbys));
}

TEST(Standbys, AStandbyThatIsGoneIsNamedOnceTheStreamWaitsForIt) {
  Standbys standbys = prepared();
  standbys.named = "b, c";
  standbys.absent = "c";
  EXPECT_FALSE(problem_of(standbys));
  standbys.waits = true;
  const auto problem = problem_of(standbys);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->code, "standby_gone");
  EXPECT_NE(problem->message.find(": c"), std::string::npos);
}

TEST(Standbys, AStandbyThatNothingWaitsForIsTold) {
  Standbys standbys = prepared();
  standbys.named = "";
  const auto problem = problem_of(standbys);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->code, "standby_not_waited_for");
  EXPECT_NE(problem->remedy.find("synchronized_standby_slots = 'b'"), std::string::npos);
}

TEST(Standbys, ASlotThatNoStandbySynchronisesIsTold) {
  Standbys standbys = prepared();
  standbys.synchronising = 0;
  const auto problem = problem_of(standbys);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->code, "slot_not_synchronised");
  EXPECT_NE(problem->message.find("pgstream_1"), std::string::npos);
}

}  // namespace
}  // namespace relay::stream
