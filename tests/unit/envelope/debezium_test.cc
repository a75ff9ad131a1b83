#include <gtest/gtest.h>

#include <string>

#include "envelope/batches.h"

namespace relay::envelope {
namespace {

EncoderOptions debezium() {
  EncoderOptions options;
  options.wire_format = "debezium";
  options.pipeline = "feed";
  return options;
}

std::string source(const Message& message, std::string_view snapshot, int ordinal) {
  return R"("source":{"version":"1","connector":"pgtrickle","name":"feed","ts_ms":1777284903412,)"
         R"("ts_us":1777284903412000,"ts_ns":1777284903412000000,"snapshot":")" +
         std::string(snapshot) + R"(","db":"shop","sequence":"[\"7\",\")" +
         std::to_string(ordinal) + R"(\"]","schema":"public","table":"orders","id":")" +
         std::string(message.id) + R"("})";
}

constexpr const char* kTail =
    R"("ts_ms":1777284903412,"ts_us":1777284903412000,"ts_ns":1777284903412000000,)"
    R"("transaction":null})";

std::string event(const Message& message, std::string_view op, std::string_view before,
                  std::string_view after, std::string_view snapshot, int ordinal) {
  return R"({"before":)" + std::string(before) + R"(,"after":)" + std::string(after) + "," +
         source(message, snapshot, ordinal) + R"(,"op":")" + std::string(op) + "\"," + kTail;
}

TEST(Debezium, HasAnEventForEachRowEvenWhereDeltasAreAskedFor) {
  Batch batch;
  batch.delta(7, {R"({"id": 1, "v": 2})", R"({"id": 3, "v": 1.10})"},
              {R"({"id": 1, "v": 1})", R"({"id": 2, "v": 9})"});
  const MessageBatch messages = encode(debezium(), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 3u);
  const auto& [update, remove, insert] =
      std::tie(messages.messages[0], messages.messages[1], messages.messages[2]);
  EXPECT_EQ(update.body,
            event(update, "u", R"({"id": 1, "v": 1})", R"({"id": 1, "v": 2})", "false", 0));
  EXPECT_EQ(remove.body, event(remove, "d", R"({"id": 2, "v": 9})", "null", "false", 1));
  EXPECT_EQ(insert.body, event(insert, "c", "null", R"({"id": 3, "v": 1.10})", "false", 3));
  EXPECT_EQ(insert.content_type, "application/json");
}

TEST(Debezium, TheRowsOfAFullRefreshAreReads) {
  Batch batch;
  delta_of(batch.delta(7, {R"({"id": 1})"}, {})).full_refresh = true;
  const MessageBatch messages = encode(debezium(), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_EQ(messages.messages[0].body,
            event(messages.messages[0], "r", "null", R"({"id": 1})", "true", 0));
}

TEST(Debezium, ATruncateIsOneEventWithoutRows) {
  Batch batch;
  batch.truncate(7);
  const MessageBatch messages = encode(debezium(), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_EQ(messages.messages[0].body, event(messages.messages[0], "t", "null", "null", "true", 0));
}

TEST(Debezium, TheKeyIsAnObjectOfTheKeyColumns) {
  Batch batch("orders", {"id", "odd\"name"});
  batch.delta(7, {R"({"id": 1.50, "odd\"name": "x", "v": 2})"}, {});
  EXPECT_EQ(encode(debezium(), std::move(batch)).messages.at(0).key,
            R"({"id":1.50,"odd\"name":"x"})");
}

TEST(Debezium, AKeyTemplateGoesBeforeTheObject) {
  EncoderOptions options = debezium();
  options.key_template = "k-{key}";
  Batch batch;
  batch.delta(7, {R"({"id": 1})"}, {});
  EXPECT_EQ(encode(options, std::move(batch)).messages.at(0).key, "k-1");
}

TEST(Debezium, KeepsEveryByteOfARow) {
  const std::string row =
      "{\"id\": 1234567890123456789012345678901234567890.10, \"t\": \"\\u0041\\n😀\", \"n\": 1e400}";
  Batch batch;
  batch.delta(7, {row}, {});
  const MessageBatch messages = encode(debezium(), std::move(batch));
  EXPECT_EQ(between(messages.messages.at(0).body, "\"after\":", ",\"source\""), row);
}

TEST(Debezium, PassesEventsOnUnchanged) {
  Batch batch;
  batch.event(7, "{\"a\":  1.0}");
  const MessageBatch messages = encode(debezium(), std::move(batch));
  EXPECT_EQ(messages.messages.at(0).body, "{\"a\":  1.0}");
  EXPECT_EQ(messages.messages.at(0).key, "k1");
}

TEST(Tombstones, FollowEachDeleteWithItsKeyAndAnIdOfTheirOwn) {
  EncoderOptions options = debezium();
  options.tombstones = true;
  Batch batch;
  batch.delta(7, {R"({"id": 1, "v": 2})"}, {R"({"id": 1, "v": 1})", R"({"id": 2, "v": 9})"});
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 3u);
  const Message& removed = messages.messages[1];
  const Message& tombstone = messages.messages[2];
  EXPECT_FALSE(removed.tombstone);
  EXPECT_TRUE(tombstone.tombstone);
  EXPECT_EQ(tombstone.body, "");
  EXPECT_EQ(tombstone.key, R"({"id":2})");
  EXPECT_EQ(tombstone.subject, removed.subject);
  EXPECT_EQ(tombstone.record, removed.record);
  EXPECT_NE(tombstone.id, removed.id);
}

TEST(Tombstones, NeedMessagesOfRows) {
  EncoderOptions options;
  options.tombstones = true;
  const auto made = Encoder::make(options);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, "tombstones");
  options.row_mode = true;
  EXPECT_TRUE(Encoder::make(options));
}

}  // namespace
}  // namespace relay::envelope
