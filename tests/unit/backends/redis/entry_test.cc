#include "backends/redis/entry.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "backends/redis/codec.h"
#include "backends/redis/columns.h"
#include "backends/redis/entry_id.h"
#include "backends/redis/errors.h"
#include "backends/redis/receipts.h"

namespace relay::redis {
namespace {

using Columns = std::vector<std::pair<std::string, std::string>>;

Message message(std::string_view body) {
  Message made;
  made.id = "p:1";
  made.subject = "orders";
  made.op = "insert";
  made.body = body;
  made.content_type = "application/json";
  return made;
}

std::vector<std::string> written(const Message& made, FieldMode mode,
                                 std::optional<std::int64_t> maxlen = {}) {
  std::string out;
  EXPECT_TRUE(EntryWriter(mode, maxlen).append(out, made));
  ReplyReader reader;  // a command is an array too
  reader.feed(out);
  const auto reply = reader.next();
  EXPECT_TRUE(reply && *reply) << out;
  std::vector<std::string> words;
  for (const Reply& word : (*reply)->elements) words.push_back(word.text);
  return words;
}

Columns columns(std::string_view body) {
  Columns found;
  EXPECT_TRUE(read_columns(body, found)) << body;
  return found;
}

TEST(RedisEntry, HasTheHeadersAndThePayloadAsFields) {
  EXPECT_EQ(written(message("{}"), FieldMode::payload),
            (std::vector<std::string>{"XADD", "orders", "*", "pgtrickle_id", "p:1", "pgtrickle_op",
                                      "insert", "payload", "{}"}));
}

TEST(RedisEntry, AsksForTrimmingAboutThere) {
  const auto words = written(message("{}"), FieldMode::payload, 1000);
  EXPECT_EQ(std::vector<std::string>(words.begin(), words.begin() + 6),
            (std::vector<std::string>{"XADD", "orders", "MAXLEN", "~", "1000", "*"}));
}

TEST(RedisEntry, NamesAContentTypeThatIsNotTheUsualOne) {
  Message made = message("x");
  made.content_type = "text/plain";
  const auto words = written(made, FieldMode::payload);
  EXPECT_EQ(std::vector<std::string>(words.end() - 4, words.end()),
            (std::vector<std::string>{"content_type", "text/plain", "payload", "x"}));
}

TEST(RedisEntry, OfATombstoneHasNoPayload) {
  Message made = message("");
  made.tombstone = true;
  EXPECT_EQ(written(made, FieldMode::payload).back(), "insert");
}

TEST(RedisEntry, ThatCannotBeWrittenLeavesNothingBehind) {
  std::string out = "before";
  EXPECT_FALSE(EntryWriter(FieldMode::columns, {}).append(out, message("no json")));
  EXPECT_EQ(out, "before");
}

TEST(RedisColumns, AreThoseOfTheNewRow) {
  EXPECT_EQ(
      columns(R"({"stream_table":"t","op":"update","key":{"id":1},)"
              R"("new":{"id":1,"n":1.50,"t":"a\"\u00fc","b":true,"x":null,"j":{"a":[1, 2]}},)"
              R"("old":{"id":0}})"),
      (Columns{{"id", "1"}, {"n", "1.50"}, {"t", "a\"ü"}, {"b", "true"}, {"j", "{\"a\":[1, 2]}"}}));
}

TEST(RedisColumns, OfADeletedRowAreThoseThatItHad) {
  EXPECT_EQ(columns(R"({"stream_table":"t","op":"delete","new":null,"old":{"id":7}})"),
            (Columns{{"id", "7"}}));
}

TEST(RedisColumns, OfAnyOtherObjectAreItsMembers) {
  EXPECT_EQ(columns(R"({"op":"x","new":{"a":1}})"), (Columns{{"op", "x"}, {"new", "{\"a\":1}"}}));
}

TEST(RedisColumns, KeepNumbersAsTheyStand) {
  EXPECT_EQ(columns(R"({"n": 1234567890123456789012345678901234567890.10 , "m":-0.0e5})"),
            (Columns{{"n", "1234567890123456789012345678901234567890.10"}, {"m", "-0.0e5"}}));
}

TEST(RedisColumns, ADeltaHasNone) {
  Columns found;
  const auto read = read_columns(R"({"stream_table":"t","delta":{"inserted":[]}})", found);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().error_class, ErrorClass::misconfigured);
}

TEST(RedisColumns, WhatIsNoObjectIsRejected) {
  for (const auto* body : {"[1]", "1", "\"a\"", "null", "", "{", "{\"a\":}"}) {
    Columns found;
    const auto read = read_columns(body, found);
    ASSERT_FALSE(read) << body;
    EXPECT_EQ(read.error().error_class, ErrorClass::rejected) << body;
  }
}

TEST(RedisEntryId, IsATimeAndANumber) {
  EXPECT_EQ(parse_entry_id("1763700000000-7"), (EntryId{1763700000000, 7}));
  for (const auto* text : {"", "1", "1-", "-1", "a-1", "1-1x", "99999999999999999999-0"}) {
    EXPECT_FALSE(parse_entry_id(text)) << text;
  }
}

TEST(RedisErrors, SayWhetherAMessageTheServerOrTheConfigurationIsToBlame) {
  const auto class_of = [](std::string_view reply) {
    return refusal(reply, "key", "h").error_class;
  };
  EXPECT_EQ(class_of("WRONGTYPE Operation against a key"), ErrorClass::rejected);
  for (const auto* text :
       {"OOM command not allowed", "READONLY You can't", "LOADING Redis is", "MASTERDOWN Link",
        "TRYAGAIN Multiple", "CLUSTERDOWN Hash", "MISCONF x", "ERR max number of clients reached",
        "EXECABORT x", "ERR something new"}) {
    EXPECT_EQ(class_of(text), ErrorClass::transient) << text;
  }
  for (const auto* text : {"NOAUTH Authentication", "WRONGPASS invalid", "NOPERM this user",
                           "MOVED 1 a:1", "DENIED Redis is running in protected mode"}) {
    EXPECT_EQ(class_of(text), ErrorClass::misconfigured) << text;
  }
}

TEST(RedisReceipts, GivesEntriesToAcknowledgeUntilTheyAreForgotten) {
  Receipts receipts;
  EXPECT_EQ(receipts.add("1-0"), 1);
  EXPECT_EQ(receipts.add("2-0"), 2);
  EXPECT_EQ(receipts.add("3-0"), 3);
  EXPECT_EQ(receipts.settled(2), (std::vector<std::string>{"1-0", "2-0"}));
  EXPECT_EQ(receipts.settled(2).size(), 2u);
  receipts.forget(2);
  EXPECT_EQ(receipts.settled(3), (std::vector<std::string>{"3-0"}));
}

TEST(RedisReceipts, DoesNotTakeAnEntryTwiceWhileItIsUnderWay) {
  Receipts receipts;
  EXPECT_EQ(receipts.add("1-0"), 1);
  EXPECT_EQ(receipts.add("1-0"), 0);
  receipts.forget(1);
  EXPECT_EQ(receipts.add("1-0"), 2);
}

TEST(RedisReceipts, NumbersRiseAcrossConnections) {
  Receipts receipts;
  EXPECT_EQ(receipts.add("1-0"), 1);
  receipts.clear();
  EXPECT_EQ(receipts.add("1-0"), 2);
  EXPECT_EQ(receipts.settled(1).size(), 0u);
}

}  // namespace
}  // namespace relay::redis
