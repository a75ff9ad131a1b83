#include "stream/event_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace relay::stream {
namespace {

constexpr ReadLimits kAll{1000, 1u << 30};

EventRow row(std::string_view payload, std::string_view metadata = {}) {
  EventRow made;
  made.id = "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
  made.payload = payload;
  made.metadata = metadata;
  made.created_at = Timestamp(std::chrono::seconds(7));
  return made;
}

const Event& event(const Record& record) {
  return std::get<Event>(record.content);
}

std::string key_of(std::string_view payload) {
  RecordBatch batch;
  append(batch, row(payload), {1, 0, 1});
  return std::string(event(batch.records[0]).key);
}

TEST(EventQueue, GivesWhatWasPushed) {
  EventQueue queue;
  queue.push(5, 1, row(R"({"a":1})"));
  queue.push(5, 2, row(R"({"a":2})"));
  queue.end_transaction();
  RecordBatch batch;
  EXPECT_EQ(queue.take(kAll, batch).n, 5);
  ASSERT_EQ(batch.records.size(), 2U);
  EXPECT_EQ(event(batch.records[0]).id, "01234567-89ab-cdef-0123-456789abcdef");
  EXPECT_EQ(event(batch.records[0]).payload, R"({"a":1})");
  EXPECT_EQ(batch.records[0].created_at, Timestamp(std::chrono::seconds(7)));
  EXPECT_EQ(batch.records[0].position(), (Position{4, 1, ""}));
  EXPECT_EQ(batch.records[1].position(), (Position{5, 0, ""}));
  EXPECT_FALSE(queue.has_events());
  EXPECT_EQ(queue.events(), 0U);
  EXPECT_EQ(queue.bytes(), 0U);
}

TEST(EventQueue, TheNewestEventWaitsForTheEndOfItsTransaction) {
  EventQueue queue;
  queue.push(1, 1, row("{}"));
  EXPECT_FALSE(queue.has_events());
  queue.push(1, 2, row("{}"));
  EXPECT_TRUE(queue.has_events());
  RecordBatch batch;
  EXPECT_EQ(queue.take(kAll, batch).ordinal, 1);
  EXPECT_FALSE(queue.has_events());
  queue.end_transaction();
  EXPECT_TRUE(queue.take(kAll, batch).whole());
}

TEST(EventQueue, KeepsToTheLimitsButGivesOneEventAtLeast) {
  EventQueue queue;
  const std::string large = '"' + std::string(100000, 'x') + '"';
  for (int n = 1; n <= 5; ++n) {
    queue.push(n, 1, row(large));
    queue.end_transaction();
  }
  RecordBatch two;
  EXPECT_EQ(queue.take({2, 1u << 30}, two).n, 2);
  RecordBatch small;
  EXPECT_EQ(queue.take({100, 10}, small).n, 3);
  EXPECT_EQ(small.records.size(), 1U);
  queue.clear();
  EXPECT_FALSE(queue.has_events());
  EXPECT_EQ(queue.bytes(), 0U);
}

TEST(EventQueue, TheKeyIsTheGroupOfThePayload) {
  EXPECT_EQ(key_of(R"({"tg_name":"a","group_id":"é\n1"})"), "é\n1");
  EXPECT_EQ(key_of(R"({"group_id": 12.50 , "a": 1})"), "12.50");
  EXPECT_EQ(key_of(R"({"a": {"group_id": "inner"}})"), "");
  EXPECT_EQ(key_of(R"({"group_id": null})"), "");
  EXPECT_EQ(key_of(R"({"group_id": ["x"]})"), "");
  EXPECT_EQ(key_of(R"(["group_id"])"), "");
  EXPECT_EQ(key_of(R"({"a": "\"group_id\""})"), "");
}

}  // namespace
}  // namespace relay::stream
