#include <gtest/gtest.h>

#include <string>

#include "envelope/batches.h"

namespace relay::envelope {
namespace {

constexpr const char* kNewRow =
    R"({"region": "europe", "day": "2026-04-27", "revenue": 150200.50, "order_count": 1203})";
constexpr const char* kOldRow =
    R"({"region": "europe", "day": "2026-04-27", "revenue": 149800.00, "order_count": 1201})";

Batch revenue() {
  Batch batch("revenue_by_region", {"region", "day"});
  Delta& delta = delta_of(batch.delta(42, {kNewRow}, {kOldRow}));
  delta.refresh_mode = "DIFFERENTIAL";
  delta.refresh_duration_ms = 12;
  return batch;
}

TEST(NativeDelta, IsTheDocumentedEnvelope) {
  const MessageBatch batch = encode({}, revenue());
  ASSERT_EQ(batch.messages.size(), 1u);
  const Message& message = batch.messages[0];
  const std::string id(message.id);
  EXPECT_EQ(message.body,
            R"({"stream_table":"revenue_by_region","sequence":42,)"
            R"("timestamp":"2026-04-27T10:15:03.412Z","delta":{"inserted":[)" +
                std::string(kNewRow) + R"(],"deleted":[)" + kOldRow +
                R"(]},"metadata":{"refresh_mode":"DIFFERENTIAL","refresh_duration_ms":12,)"
                R"("delta_rows":2,"id":")" +
                id + R"("}})");
  EXPECT_EQ(message.subject, "revenue_by_region");
  EXPECT_EQ(message.key, "revenue_by_region");
  EXPECT_EQ(message.op, "update");
  EXPECT_EQ(message.stream_table, "revenue_by_region");
  EXPECT_EQ(message.content_type, "application/json");
  EXPECT_EQ(message.outbox_id, 42);
  EXPECT_FALSE(message.full_refresh);
}

TEST(NativeDelta, SaysNullForWhatAnOrdinaryTableDoesNotKnow) {
  Batch batch;
  batch.delta(1, {R"({"id": 1})"}, {});
  const MessageBatch messages = encode({}, std::move(batch));
  EXPECT_EQ(between(messages.messages[0].body, "\"metadata\":{", ",\"id\""),
            R"("refresh_mode":null,"refresh_duration_ms":null,"delta_rows":1)");
}

TEST(NativeDelta, KeepsEveryByteOfTheRows) {
  const std::string row =
      "{\"id\": 1234567890123456789012345678901234567890.10, \"t\": \"\\u0041\\n😀\", "
      "\"n\": 1e400, \"o\": {\"a\": [1,  2]}}";
  for (const char* filter : {"", "id > 1"}) {
    EncoderOptions options;
    if (*filter != '\0') options.filter = filter;
    Batch batch;
    batch.delta(1, {row}, {});
    EXPECT_EQ(inserted(encode(options, std::move(batch)).messages.at(0)), "[" + row + "]");
  }
}

TEST(NativeDelta, EscapesTheTableName) {
  Batch batch("odd\"name", {});
  batch.delta(1, {R"({"id": 1})"}, {});
  const MessageBatch messages = encode({}, std::move(batch));
  EXPECT_TRUE(messages.messages[0].body.starts_with(R"({"stream_table":"odd\"name",)"));
}

TEST(NativeDelta, TruncateIsOneMessageWithEmptyArrays) {
  Batch batch;
  batch.truncate(7);
  const MessageBatch messages = encode({}, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_EQ(messages.messages[0].op, "refresh");
  EXPECT_TRUE(messages.messages[0].full_refresh);
  EXPECT_EQ(inserted(messages.messages[0]), "[]");
  EXPECT_EQ(deleted(messages.messages[0]), "[]");
  EXPECT_TRUE(messages.messages[0].body.ends_with(",\"full_refresh\":true}}"));
}

TEST(NativeDelta, ShowsThePartOfACutClaimCheck) {
  Batch batch;
  Delta& delta = delta_of(batch.delta(7, {R"({"id": 1})"}, {}));
  delta.part = 3;
  delta.final = false;
  delta.first_ordinal = 2000;
  const MessageBatch messages = encode({}, std::move(batch));
  EXPECT_TRUE(messages.messages[0].body.ends_with(",\"part\":3,\"final\":false}}"));
  EXPECT_TRUE(messages.messages[0].id.starts_with("p:7-0a1b2c3d:2000."));
}

TEST(NativeDelta, WithoutRowsIsNoMessage) {
  Batch batch;
  batch.delta(7, {}, {});
  EXPECT_TRUE(encode({}, std::move(batch)).messages.empty());
}

EncoderOptions row_mode() {
  EncoderOptions options;
  options.row_mode = true;
  return options;
}

TEST(NativeRow, IsTheDocumentedEnvelope) {
  Batch batch("orders", {"id"});
  batch.delta(9, {R"({"id": 1, "v": 2})", R"({"id": 3, "v": 3})"},
              {R"({"id": 1, "v": 1})", R"({"id": 2, "v": 2})"});
  const MessageBatch messages = encode(row_mode(), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 3u);
  const std::string head =
      R"({"stream_table":"orders","sequence":9,"timestamp":"2026-04-27T10:15:03.412Z",)";
  const auto tail = [](const Message& message) {
    return R"(,"metadata":{"id":")" + std::string(message.id) + "\"}}";
  };
  const auto& [update, removal, insertion] =
      std::tie(messages.messages[0], messages.messages[1], messages.messages[2]);
  EXPECT_EQ(update.body, head +
                             R"("op":"update","key":{"id": 1},"new":{"id": 1, "v": 2},)"
                             R"("old":{"id": 1, "v": 1})" +
                             tail(update));
  EXPECT_EQ(
      removal.body,
      head + R"("op":"delete","key":{"id": 2},"new":null,"old":{"id": 2, "v": 2})" + tail(removal));
  EXPECT_EQ(insertion.body,
            head + R"("op":"insert","key":{"id": 3},"new":{"id": 3, "v": 3},"old":null)" +
                tail(insertion));
  EXPECT_EQ(update.key, "1");
  EXPECT_EQ(removal.op, "delete");
}

TEST(NativeRow, FullRefreshGivesRefreshMessages) {
  Batch batch;
  delta_of(batch.delta(9, {R"({"id": 1})", R"({"id": 2})"}, {})).full_refresh = true;
  const MessageBatch messages = encode(row_mode(), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 2u);
  EXPECT_EQ(messages.messages[1].op, "refresh");
  EXPECT_TRUE(messages.messages[1].full_refresh);
  EXPECT_NE(messages.messages[1].body.find("\"full_refresh\":true"), std::string_view::npos);
}

TEST(NativeRow, TruncateIsOneMessageWithoutRows) {
  Batch batch;
  batch.truncate(9);
  const MessageBatch messages = encode(row_mode(), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_NE(messages.messages[0].body.find(R"("op":"refresh","key":null,"new":null,"old":null)"),
            std::string_view::npos);
  EXPECT_EQ(messages.messages[0].key, "orders");
}

TEST(NativeRow, RowChangesOfAFeedAreTheSame) {
  Batch batch;
  batch.row(1, RowChange::Op::update, R"({"id": 1, "v": 2})", R"({"id": 1, "v": 1})");
  batch.row(2, RowChange::Op::remove, "", R"({"id": 1, "v": 2})");
  batch.row(3, RowChange::Op::update, R"({"id": 2})", R"({"id": 1})");
  batch.row(4, RowChange::Op::refresh, "", "");
  const MessageBatch messages = encode(row_mode(), std::move(batch));
  EXPECT_EQ(routes(messages),
            (std::vector<std::string>{"orders update", "orders delete", "orders delete",
                                      "orders insert", "orders refresh"}));
  EXPECT_NE(messages.messages[2].id, messages.messages[3].id);
}

TEST(NativeRow, TheKeyIsTheRowsPrimaryKey) {
  const auto key_of = [](std::vector<std::string> columns, const char* row) {
    Batch batch("orders", std::move(columns));
    batch.delta(1, {row}, {});
    const MessageBatch messages = encode(row_mode(), std::move(batch));
    return std::string(messages.messages.at(0).key);
  };
  EXPECT_EQ(key_of({"id"}, R"({"id": "a\"b"})"), "a\"b");
  EXPECT_EQ(key_of({"id"}, R"({"id": 1.50})"), "1.50");
  EXPECT_EQ(key_of({"id"}, R"({"id": null})"), "_null");
  EXPECT_EQ(key_of({"b", "a"}, R"({"a": "x", "b": 2})"), R"([2,"x"])");
  EXPECT_EQ(key_of({}, R"({"id": 1})"), "orders");
}

TEST(Events, PassThroughWithoutACopy) {
  Batch batch("app_events", {});
  Record& record = batch.event(5, R"({"amount": 1.10})");
  const std::string_view payload = std::get<Event>(record.content).payload;
  const MessageBatch messages = encode({}, std::move(batch));
  const Message& message = messages.messages.at(0);
  EXPECT_EQ(message.body.data(), payload.data());
  EXPECT_EQ(message.body, R"({"amount": 1.10})");
  EXPECT_EQ(message.op, "order.paid");
  EXPECT_EQ(message.key, "k1");
  EXPECT_EQ(message.subject, "app_events");
}

TEST(Events, EnvelopeWrapsThemWhereItIsAskedFor) {
  EncoderOptions options;
  options.event_envelope = true;
  Batch batch("app_events", {});
  std::get<Event>(batch.event(5, R"({"a": 1})").content).id = "my-id";
  batch.event(6, "\xFF\x01", "", "");
  const MessageBatch messages = encode(options, std::move(batch));
  EXPECT_EQ(messages.messages[0].body,
            R"({"id":"my-id","type":"order.paid","key":"k1","payload":{"a": 1}})");
  EXPECT_EQ(
      between(messages.messages[1].body, "\"type\"", "<end>"),
      R"(:null,"key":null,"payload":{"raw_base64":"/wE=","content_type":"application/json"}})");
}

TEST(Events, KeepTheirOwnId) {
  Batch batch("app_events", {});
  std::get<Event>(batch.event(5, "{}").content).id = "my-id";
  batch.event(6, "{}");
  (*batch).id_suffix = ":r2";
  const MessageBatch messages = encode({}, std::move(batch));
  EXPECT_EQ(messages.messages[0].id, "my-id:r2");
  EXPECT_TRUE(messages.messages[1].id.starts_with("p:6-0a1b2c3d:0."));
  EXPECT_TRUE(messages.messages[1].id.ends_with(":r2"));
}

TEST(Events, FilterAndTemplatesLookIntoThePayload) {
  EncoderOptions options;
  options.filter = "amount > 5";
  options.subject_template = "{event_type}.{{ customer.id }}.{key}";
  Batch batch("app_events", {});
  batch.event(1, R"({"amount": 9, "customer": {"id": 77}})");
  batch.event(2, R"({"amount": 1, "customer": {"id": 77}})");
  batch.event(3, R"({"other": true})");  // not there is NULL, and NULL is not more than 5
  batch.event(4, R"({"amount": 9})");    // no customer to route by
  batch.event(5, "plain text");          // nothing to look into
  batch.event(6, R"({"amount": 7, "customer": {}})");
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 4u);
  EXPECT_EQ(messages.messages[0].subject, "order.paid.77.k1");
  ASSERT_TRUE(messages.messages[1].refused);
  EXPECT_EQ(messages.messages[1].refused->code, "missing_column");
  EXPECT_EQ(messages.messages[1].body, R"({"amount": 9})");
  ASSERT_TRUE(messages.messages[2].refused);
  EXPECT_EQ(messages.messages[2].body, "plain text");
  EXPECT_EQ(messages.messages[3].subject, "order.paid._null.k1");
}

}  // namespace
}  // namespace relay::envelope
