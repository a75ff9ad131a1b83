#include "backends/redis/event.h"

#include <gtest/gtest.h>

namespace relay::redis {
namespace {

struct Made {
  Arena arena;
  Record record;
  const Event& event() const { return std::get<Event>(record.content); }
};

Made made(const Entry& entry, EventRules rules = {.id_scope = "p:"}) {
  Made result;
  result.record = to_record(entry, rules, FieldMapping(), result.arena);
  return result;
}

TEST(RedisEvent, TakesWhatTheSinkWrote) {
  const auto got = made({"orders",
                         "1763700000123-0",
                         {{"pgtrickle_id", "x:1"},
                          {"event_type", "paid"},
                          {"trace", "t"},
                          {"payload", "{\"a\":1}"}}});
  EXPECT_EQ(got.event().id, "x:1");
  EXPECT_EQ(got.event().type, "paid");
  EXPECT_EQ(got.event().payload, "{\"a\":1}");
  EXPECT_EQ(got.record.headers, R"({"pgtrickle_id":"x:1","event_type":"paid","trace":"t"})");
  EXPECT_EQ(got.record.created_at.time_since_epoch(), std::chrono::milliseconds(1763700000123));
}

TEST(RedisEvent, WithoutAnIdIsNamedAfterPipelineKeyAndEntry) {
  const Entry entry{"orders", "1-2", {{"payload", "1"}}};
  EXPECT_EQ(made(entry).event().id, "p:orders:1-2");
  EXPECT_EQ(made(entry, {.id_scope = ""}).event().id, "orders:1-2");
  EXPECT_EQ(made({"a:b", "1-2", {}, "77"}).event().id, "p:a%3Ab:77:1-2");
  EXPECT_EQ(made(entry).event().type, "orders");
}

TEST(RedisEvent, WithoutAPayloadIsAnObjectOfItsFields) {
  const auto got = made({"orders", "1-2", {{"id", "7"}, {"name", "a\"b"}, {"pgtrickle_op", "x"}}});
  EXPECT_EQ(got.event().payload, R"({"id":"7","name":"a\"b"})");
  EXPECT_EQ(got.record.headers, R"({"pgtrickle_op":"x"})");
}

TEST(RedisEvent, KeepsBytesThatAreNoText) {
  const auto got = made({"orders", "1-2", {{"payload", "\xff\xfe"}, {"h", "\xff"}}});
  EXPECT_EQ(got.event().payload, "\xff\xfe");
  EXPECT_EQ(got.record.headers, R"({"h":"base64:/w=="})");
}

TEST(RedisEvent, TooLargeIsRefusedAndKept) {
  EventRules rules;
  rules.max_record_bytes = 3;
  const auto got = made({"orders", "1-2", {{"payload", "1234"}}}, rules);
  ASSERT_TRUE(got.record.refused);
  EXPECT_EQ(got.record.refused->error_class, ErrorClass::rejected);
}

}  // namespace
}  // namespace relay::redis
