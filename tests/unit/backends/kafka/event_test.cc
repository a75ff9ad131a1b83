#include "backends/kafka/event.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::kafka {
namespace {

class KafkaEvent : public ::testing::Test {
 protected:
  Record record() { return to_record(consumed_, rules_, mapping_, arena_); }
  Event event() { return std::get<Event>(record().content); }

  Arena arena_;
  FieldMapping mapping_;
  EventRules rules_{.id_scope = "p:", .cluster = "C", .max_record_bytes = 100};
  Consumed consumed_{.topic = "orders",
                     .partition = 3,
                     .offset = 17,
                     .timestamp_ms = 1000,
                     .key = "k",
                     .value = R"({"a":1})",
                     .headers = {}};
};

TEST_F(KafkaEvent, HasAnIdThatNoOtherRecordWillEverHave) {
  EXPECT_EQ(event().id, "p:C:orders:3:17:1000");
  rules_.id_scope.clear();
  EXPECT_EQ(event().id, "C:orders:3:17:1000");
}

TEST_F(KafkaEvent, KeepsTheIdAndTypeThatTheRecordBrings) {
  consumed_.headers = {{"pgtrickle-id", "own"}, {"event-type", "paid"}};
  EXPECT_EQ(event().id, "own");
  EXPECT_EQ(event().type, "paid");
}

TEST_F(KafkaEvent, HasTheTopicAsTypeAndTheKeyAsKey) {
  EXPECT_EQ(event().type, "orders");
  EXPECT_EQ(event().key, "k");
  EXPECT_EQ(event().payload, R"({"a":1})");
}

TEST_F(KafkaEvent, HasBinaryTextInBase64) {
  consumed_.key = std::string_view("\xff\x00", 2);
  consumed_.headers = {{"h", std::string_view("\x00", 1)}};
  EXPECT_EQ(event().key, "base64:/wA=");
  EXPECT_EQ(record().headers, R"({"h":"base64:AA=="})");
}

TEST_F(KafkaEvent, OfATombstoneHasNullAsPayload) {
  consumed_.value.reset();
  EXPECT_EQ(event().payload, "null");
}

TEST_F(KafkaEvent, HasAllHeadersAndTheLastOfOneName) {
  consumed_.headers = {{"a", "1"}, {"b", "\"2\""}, {"a", "3"}};
  EXPECT_EQ(record().headers, R"({"b":"\"2\"","a":"3"})");
  consumed_.headers.clear();
  EXPECT_EQ(record().headers, "");
}

TEST_F(KafkaEvent, BeyondTheLimitIsRefusedAndShown) {
  const std::string large(101, 'x');
  consumed_.value = large;
  ASSERT_TRUE(record().refused);
  EXPECT_EQ(record().refused->code, "too_large");
  EXPECT_EQ(event().payload, large);
}

TEST_F(KafkaEvent, WasWrittenWhenTheRecordSays) {
  EXPECT_EQ(record().created_at.time_since_epoch(), std::chrono::seconds(1));
}

}  // namespace
}  // namespace relay::kafka
