#include "backends/kafka/offsets.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <vector>

namespace relay::kafka {
namespace {

using Next = Offsets::Next;

TEST(KafkaOffsets, CountFromOne) {
  Offsets offsets;
  EXPECT_EQ(offsets.add("t", 0, 10), 1);
  EXPECT_EQ(offsets.add("t", 1, 20), 2);
  EXPECT_EQ(offsets.unsettled(), 2u);
}

TEST(KafkaOffsets, GoOnBehindTheLastSettledRecordOfEachPartition) {
  Offsets offsets;
  offsets.add("t", 0, 10);
  offsets.add("u", 0, 5);
  offsets.add("t", 0, 12);
  EXPECT_EQ(offsets.settle(2), (std::vector<Next>{{"t", 0, 11}, {"u", 0, 6}}));
  EXPECT_EQ(offsets.settle(2), std::vector<Next>{});
  EXPECT_EQ(offsets.settle(3), (std::vector<Next>{{"t", 0, 13}}));
}

TEST(KafkaOffsets, NothingIsCommittedOfAPartitionThatWasGivenUp) {
  Offsets offsets;
  offsets.add("t", 0, 10);
  offsets.add("t", 1, 10);
  offsets.give_up("t", 0);
  offsets.add("t", 0, 10);  // it came back
  EXPECT_EQ(offsets.settle(2), (std::vector<Next>{{"t", 1, 11}}));
  EXPECT_EQ(offsets.settle(3), (std::vector<Next>{{"t", 0, 11}}));
  offsets.add("t", 0, 11);
  offsets.give_up_all();
  EXPECT_EQ(offsets.settle(4), std::vector<Next>{});
  EXPECT_EQ(offsets.unsettled(), 0u);
}

TEST(KafkaOffsets, TellTheFirstThatIsNotSettled) {
  Offsets offsets;
  EXPECT_EQ(offsets.first_unsettled("t", 0), std::nullopt);
  offsets.add("t", 0, 40);
  offsets.add("t", 1, 7);
  offsets.add("t", 0, 42);
  EXPECT_EQ(offsets.first_unsettled("t", 0), 40);
  offsets.settle(1);
  EXPECT_EQ(offsets.first_unsettled("t", 0), 41);
  EXPECT_EQ(offsets.first_unsettled("t", 1), 7);
  offsets.settle(3);
  EXPECT_EQ(offsets.first_unsettled("t", 0), std::nullopt);
}

TEST(KafkaOffsets, ForgetWhatIsUnsettledOfAPartitionThatWasGivenUp) {
  Offsets offsets;
  offsets.add("t", 0, 40);
  offsets.give_up("t", 0);
  EXPECT_EQ(offsets.first_unsettled("t", 0), std::nullopt);
  offsets.add("t", 0, 30);
  offsets.settle(1);
  EXPECT_EQ(offsets.first_unsettled("t", 0), 30);
  offsets.settle(2);
  EXPECT_EQ(offsets.first_unsettled("t", 0), std::nullopt);
}

TEST(KafkaOffsets, NeverPassARecordThatIsNotSettled) {
  rc::check([](const std::vector<bool>& partitions) {
    Offsets offsets;
    std::map<std::int32_t, std::int64_t> read;
    std::map<std::int32_t, std::int64_t> settled;
    for (const bool partition : partitions) {
      const auto number = offsets.add("t", partition, read[partition]++);
      if (*rc::gen::inRange(0, 3) != 0) continue;
      const auto upto = *rc::gen::inRange<std::int64_t>(0, number + 1);
      for (const Next& next : offsets.settle(upto)) settled[next.partition] = next.offset;
      RC_ASSERT(settled[0] <= read[0] && settled[1] <= read[1]);
      RC_ASSERT(settled[0] + settled[1] >= upto || upto == 0);
    }
    for (const Next& next : offsets.settle(static_cast<std::int64_t>(partitions.size()))) {
      settled[next.partition] = next.offset;
    }
    RC_ASSERT(settled[0] == read[0] && settled[1] == read[1]);
  });
}

}  // namespace
}  // namespace relay::kafka
