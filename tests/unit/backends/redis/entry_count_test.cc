#include "backends/redis/entry_count.h"

#include <gtest/gtest.h>

namespace relay::redis {
namespace {

Reply text(std::string value) {
  Reply reply;
  reply.kind = Reply::Kind::text;
  reply.text = std::move(value);
  return reply;
}

Reply number(std::int64_t value) {
  Reply reply;
  reply.kind = Reply::Kind::integer;
  reply.integer = value;
  return reply;
}

TEST(RedisGroupState, TakesALagOnlyWhereTheServerKnowsIt) {
  Reply fields;
  fields.kind = Reply::Kind::array;
  fields.elements = {text("name"),    text("g"), text("last-delivered-id"), text("5-1"),
                     text("pending"), number(7), text("entries-read"),      number(3),
                     text("lag"),     number(12)};
  const auto known = GroupState::of(fields);
  ASSERT_TRUE(known);
  EXPECT_EQ(known->name, "g");
  EXPECT_EQ(known->last_delivered, "5-1");
  EXPECT_EQ(known->pending, 7);
  EXPECT_EQ(known->lag, 12);
  fields.elements.back() = Reply();
  EXPECT_FALSE(GroupState::of(fields)->lag);
  EXPECT_FALSE(GroupState::of(Reply()));
}

TEST(RedisEntryCount, GoesOnWhereItWas) {
  EntryCount entries;
  entries.begin("5-1");
  EXPECT_EQ(entries.next(), "5-2");
  entries.add("5-9");
  entries.add("6-0");
  entries.begin("5-1");
  EXPECT_EQ(entries.count(), 2);
  EXPECT_EQ(entries.next(), "6-1");
}

TEST(RedisEntryCount, BeginsAnewBehindAnotherEntry) {
  EntryCount entries;
  entries.begin("5-1");
  entries.add("5-9");
  entries.begin("5-9");
  EXPECT_EQ(entries.count(), 0);
  EXPECT_EQ(entries.next(), "5-10");
}

TEST(RedisEntryCount, TheLastNumberOfAMillisecondIsFollowedByTheNextMillisecond) {
  EntryCount entries;
  entries.begin("5-18446744073709551615");
  EXPECT_EQ(entries.next(), "6-0");
}

}  // namespace
}  // namespace relay::redis
