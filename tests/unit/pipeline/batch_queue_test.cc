#include "pipeline/batch_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace relay {
namespace {

/// `count` records of one message each, numbered from `first`.
MessageBatch batch_of(int first, int count, std::size_t bytes = 1000) {
  MessageBatch batch;
  batch.bytes = bytes;
  for (int i = 0; i < count; ++i) {
    Record record;
    record.id = first + i;
    record.mark = batch.records.arena.copy("mark " + std::to_string(first + i));
    batch.records.records.push_back(record);
    Message message;
    message.id = batch.arena.copy("id " + std::to_string(first + i));
    message.record = static_cast<std::size_t>(i);
    batch.messages.push_back(message);
  }
  return batch;
}

TEST(BatchQueue, GivesWhatWaitsAsOneBatchInOrder) {
  BatchQueue queue(1 << 20);
  queue.push(batch_of(1, 3));
  queue.push(batch_of(4, 2));
  const auto batch = queue.pop();
  ASSERT_TRUE(batch);
  EXPECT_TRUE(queue.empty());
  ASSERT_EQ(batch->messages.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(batch->messages[i].id, "id " + std::to_string(i + 1));
    EXPECT_EQ(batch->messages[i].record, i);
    EXPECT_EQ(batch->records.records[i].id, static_cast<std::int64_t>(i) + 1);
    EXPECT_EQ(batch->records.records[i].mark, "mark " + std::to_string(i + 1));
  }
  EXPECT_EQ(batch->bytes, 2000U);
}

TEST(BatchQueue, PutsABatchBehindOneThatWasTaken) {
  BatchQueue queue(1 << 20);
  MessageBatch batch = batch_of(1, 1);
  EXPECT_FALSE(queue.append_to(batch));
  queue.push(batch_of(2, 2));
  EXPECT_TRUE(queue.append_to(batch));
  ASSERT_EQ(batch.messages.size(), 3U);
  EXPECT_EQ(batch.messages[2].record, 2U);
  queue.push(batch_of(4, 1, 1 << 20));  // together they would be too large
  EXPECT_FALSE(queue.append_to(batch));
  EXPECT_FALSE(queue.empty());
}

TEST(BatchQueue, KeepsAReplayAlone) {
  BatchQueue queue(1 << 20);
  queue.push(batch_of(1, 1));
  MessageBatch replay = batch_of(1, 1);
  replay.records.id_suffix = ":r1";
  queue.push(std::move(replay));
  queue.push(batch_of(2, 1));
  EXPECT_EQ(queue.pop()->messages.size(), 1U);
  EXPECT_TRUE(queue.pop()->records.is_replay());
  EXPECT_EQ(queue.pop()->messages.size(), 1U);
  EXPECT_FALSE(queue.pop());
}

TEST(BatchQueue, KeepsTheShapesOfAllRecordsOfABatch) {
  BatchQueue queue(1 << 20);
  for (const std::string table : {"orders", "customers"}) {
    MessageBatch batch;
    batch.records.add({}, std::make_shared<const TableShape>(TableShape{table, {"id"}}));
    batch.messages.emplace_back().stream_table = batch.records.records[0].shape->name;
    queue.push(std::move(batch));
  }
  const auto batch = queue.pop();
  ASSERT_EQ(batch->messages.size(), 2U);
  EXPECT_EQ(batch->messages[0].stream_table, "orders");
  EXPECT_EQ(batch->messages[1].stream_table, "customers");
  EXPECT_EQ(batch->records.records[1].shape->name, "customers");
}

TEST(BatchQueue, HoldsAtMostHalfTheBytesAndGivesAtMostAllOfThemAtOnce) {
  BatchQueue queue(10000);
  int pushed = 0;
  while (queue.has_room()) queue.push(batch_of(++pushed, 1, 3000));
  EXPECT_EQ(pushed, 2);  // the second one goes beyond the half
  queue.push(batch_of(3, 1, 3000));
  queue.push(batch_of(4, 1, 3000));
  EXPECT_EQ(queue.pop()->messages.size(), 3U);
  EXPECT_EQ(queue.pop()->messages.size(), 1U);
}

TEST(BatchQueue, TakesABatchBeyondItsBoundWhenItIsEmpty) {
  BatchQueue queue(1000);
  EXPECT_TRUE(queue.has_room());
  queue.push(batch_of(1, 1, 50000));
  EXPECT_FALSE(queue.has_room());
  EXPECT_EQ(queue.pop()->bytes, 50000U);
  EXPECT_TRUE(queue.has_room());
}

TEST(BatchQueue, LetsLittleBeReadWhileTheSinkTakesNothing) {
  BatchQueue queue(1 << 20);
  EXPECT_TRUE(queue.may_read());
  EXPECT_EQ(queue.most_records(1000), BatchQueue::kProbeRecords);
  queue.push(batch_of(1, 60));
  EXPECT_FALSE(queue.may_read()) << "a batch waits";
  queue.pop();
  EXPECT_TRUE(queue.may_read()) << "the rest of the probe may be read";
  EXPECT_EQ(queue.most_records(1000), BatchQueue::kProbeRecords - 60);
  queue.push(batch_of(61, 40));
  queue.pop();
  EXPECT_FALSE(queue.may_read());
  EXPECT_TRUE(queue.set_sink_takes(true));
  EXPECT_FALSE(queue.set_sink_takes(true)) << "that is not new";
  EXPECT_TRUE(queue.may_read());
  EXPECT_EQ(queue.most_records(1000), 1000U);
}

TEST(BatchQueue, GrowsABatchOnlyWhileTheSinkTakesNothing) {
  BatchQueue queue(1 << 20);
  MessageBatch batch = batch_of(1, 1);
  queue.push(batch_of(2, 1));
  queue.set_sink_takes(true);
  EXPECT_FALSE(queue.append_to_stuck(batch));
  queue.set_sink_takes(false);
  EXPECT_TRUE(queue.append_to_stuck(batch));
  EXPECT_EQ(batch.messages.size(), 2U);
}

TEST(BatchQueue, CountsRecordsInFlightUntilTheyAreSettled) {
  BatchQueue queue(1 << 20);
  queue.push(batch_of(1, 3));
  queue.push(batch_of(4, 2));
  queue.pop();
  EXPECT_EQ(queue.in_flight(), 5U);
  queue.leave(5);
  EXPECT_EQ(queue.in_flight(), 0U);
  queue.push(batch_of(6, 2));
  queue.clear();
  EXPECT_EQ(queue.in_flight(), 0U);
}

}  // namespace
}  // namespace relay
