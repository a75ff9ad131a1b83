#include "coordinator/share.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>
#include <vector>

namespace relay::coordinator {
namespace {

RC_GTEST_PROP(Share, InstancesTogetherAlwaysComeToHoldEveryPipeline, ()) {
  const auto pipelines = static_cast<std::size_t>(*rc::gen::inRange(0, 50));
  const auto instances = static_cast<std::size_t>(*rc::gen::inRange(1, 8));
  std::vector<std::size_t> held(instances, 0);
  held[0] = pipelines;  // the first came alone and took all
  for (int round = 0; round < 100; ++round) {
    const auto one = static_cast<std::size_t>(*rc::gen::inRange(0, static_cast<int>(instances)));
    const Share share = share_of(pipelines, instances, held[one]);
    const auto free = pipelines - std::accumulate(held.begin(), held.end(), std::size_t{0});
    held[one] += std::min(share.take, free);
    held[one] -= share.release;
  }
  for (std::size_t& mine : held) {
    mine -= share_of(pipelines, instances, mine).release;
    const auto free = pipelines - std::accumulate(held.begin(), held.end(), std::size_t{0});
    mine += std::min(share_of(pipelines, instances, mine).take, free);
  }
  for (std::size_t& mine : held) {
    const auto free = pipelines - std::accumulate(held.begin(), held.end(), std::size_t{0});
    mine += std::min(share_of(pipelines, instances, mine).take, free);
  }
  RC_ASSERT(std::accumulate(held.begin(), held.end(), std::size_t{0}) == pipelines);
}

TEST(Share, OneOfTwoInstancesTakesTheOnlyPipelineAndKeepsIt) {
  EXPECT_EQ(share_of(1, 2, 0).take, 1u);
  EXPECT_EQ(share_of(1, 2, 1).release, 0u);
}

TEST(Share, ALeaderTakesAllAndAFollowerNone) {
  EXPECT_EQ(leader_share(7, true, 3).take, 4u);
  EXPECT_EQ(leader_share(7, false, 3).release, 3u);
  EXPECT_EQ(leader_share(7, false, 0).take, 0u);
}

}  // namespace
}  // namespace relay::coordinator
