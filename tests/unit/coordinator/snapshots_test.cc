#include "coordinator/snapshots.h"

#include <gtest/gtest.h>

#include <future>

namespace relay::coordinator {
namespace {

class SnapshotsTest : public testing::Test {
 protected:
  status::Snapshot taken_by_another_thread() {
    return std::async(std::launch::async, [this] { return snapshots_.take(); }).get();
  }
  PipelineTable table_;
  Snapshots snapshots_{table_, "worker", "group"};
};

TEST_F(SnapshotsTest, ShowWhatTheTableSays) {
  {
    const MutexLock lock(table_.mutex);
    table_.instance.catalog_read = true;
    const std::vector<Reconciler::Wanted> wanted = {{"a", "1"}};
    table_.reconciler.follow(wanted);
    table_.entries["a"].config.name = "a";
  }
  const status::Snapshot snapshot = snapshots_.take();
  EXPECT_TRUE(snapshot.catalog_read);
  EXPECT_EQ(snapshot.worker_id, "worker");
  EXPECT_EQ(snapshot.group, "group");
  ASSERT_EQ(snapshot.pipelines.size(), 1u);
  EXPECT_EQ(snapshot.pipelines[0].name, "a");
  EXPECT_EQ(snapshot.pipelines[0].report.state, PipelineState::standby);
}

TEST_F(SnapshotsTest, LeaveOutAPipelineThatIsRemovedAndStillEnds) {
  {
    const MutexLock lock(table_.mutex);
    const std::vector<Reconciler::Wanted> wanted = {{"a", "1"}};
    table_.reconciler.follow(wanted);
    table_.entries["a"].config.name = "a";
    table_.reconciler.follow({});
  }
  EXPECT_TRUE(snapshots_.take().pipelines.empty());
}

TEST_F(SnapshotsTest, AreTheLastOnesWhileTheControlThreadKeepsTheTable) {
  {
    const MutexLock lock(table_.mutex);
    table_.instance.catalog_read = true;
  }
  EXPECT_TRUE(taken_by_another_thread().catalog_read);
  {
    const MutexLock lock(table_.mutex);
    table_.instance.catalog_read = false;
    EXPECT_TRUE(taken_by_another_thread().catalog_read);
  }
  EXPECT_FALSE(taken_by_another_thread().catalog_read);
}

}  // namespace
}  // namespace relay::coordinator
