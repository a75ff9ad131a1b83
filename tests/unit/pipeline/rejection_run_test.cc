#include "pipeline/rejection_run.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using std::chrono::seconds;

SharedError an_error(std::string code) {
  return share({ErrorClass::rejected, std::move(code), "no", "", {}});
}
RejectionRun::TimePoint at(int second) {
  return RejectionRun::TimePoint(seconds(second));
}

TEST(RejectionRun, CountsAcrossBatchesUntilAMessageIsDelivered) {
  RejectionRun run;
  for (int second : {1, 2, 3}) {
    run.begin_batch();
    run.rejected(4, an_error("a"));
    run.rejected(1, an_error("b"));
    run.end_batch(at(second));
  }
  EXPECT_EQ(run.report().messages, 15U);
  EXPECT_EQ(run.report().first, at(1));
  EXPECT_EQ(run.report().last, at(3));
  EXPECT_EQ(run.report().error->code, "b");
  run.delivered();
  EXPECT_EQ(run.report().messages, 0U);
}

TEST(RejectionRun, ABatchThatDeliversAMessageAddsNothing) {
  RejectionRun run;
  run.begin_batch();
  run.rejected(3, an_error("a"));
  run.delivered();
  run.rejected(3, an_error("a"));
  run.end_batch(at(1));
  EXPECT_EQ(run.report().messages, 0U);
  run.begin_batch();
  run.rejected(1, an_error("a"));
  run.end_batch(at(2));
  EXPECT_EQ(run.report().messages, 1U) << "the next batch counts on its own";
}

}  // namespace
}  // namespace relay
