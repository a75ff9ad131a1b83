#include <gtest/gtest.h>

#include <map>
#include <string>

#include "envelope/batches.h"

namespace relay::envelope {
namespace {

EncoderOptions structured() {
  EncoderOptions options;
  options.wire_format = "cloudevents";
  options.pipeline = "feed 1";
  return options;
}

EncoderOptions binary(CloudEventsBinding binding = {"ce-", true, "content-type"}) {
  EncoderOptions options = structured();
  options.cloudevents_binary = true;
  options.cloudevents_binding = binding;
  return options;
}

std::map<std::string, std::string> headers(const Message& message) {
  std::map<std::string, std::string> found;
  for (const Header& header : message.headers) {
    EXPECT_TRUE(found.emplace(header.name, header.value).second) << "twice: " << header.name;
  }
  return found;
}

Batch one_row() {
  Batch batch;
  batch.delta(7, {R"({"id": 1, "v": 1.10})"}, {});
  return batch;
}

Batch one_event(std::string_view payload, std::string_view content_type = "application/json") {
  Batch batch;
  std::get<Event>(batch.event(7, payload).content).content_type = content_type;
  return batch;
}

TEST(CloudEvents, OfARowHaveTheNativeEnvelopeAsData) {
  EncoderOptions options = structured();
  options.row_mode = true;
  const MessageBatch messages = encode(options, one_row());
  EncoderOptions native;
  native.row_mode = true;
  const MessageBatch bare = encode(native, one_row());
  const Message& message = messages.messages.at(0);
  EXPECT_EQ(message.body,
            R"({"specversion":"1.0","id":")" + std::string(message.id) +
                R"(","source":"/pgtrickle/feed%201","type":"pgtrickle.insert","subject":"1",)"
                R"("time":"2026-04-27T10:15:03.412Z","partitionkey":"1","streamtable":"orders",)"
                R"("streamschema":"public",)"
                R"("datacontenttype":"application/json","data":)" +
                std::string(bare.messages.at(0).body) + "}");
  EXPECT_EQ(message.content_type, "application/cloudevents+json");
  EXPECT_EQ(message.id, bare.messages.at(0).id);
}

TEST(CloudEvents, OfADeltaHaveTheWholeDeltaAsData) {
  const MessageBatch messages = encode(structured(), one_row());
  const Message& message = messages.messages.at(0);
  EXPECT_EQ(between(message.body, "\"data\":", ",\"delta\""),
            R"({"stream_table":"orders","sequence":7,"timestamp":"2026-04-27T10:15:03.412Z")");
  EXPECT_EQ(inserted(message), R"([{"id": 1, "v": 1.10}])");
}

TEST(CloudEvents, TheSourceCanBeConfigured) {
  EncoderOptions options = structured();
  options.cloudevents_source = "https://example.com/shop";
  const MessageBatch messages = encode(options, one_row());
  EXPECT_EQ(between(messages.messages.at(0).body, "\"source\":", ",\"type\""),
            "\"https://example.com/shop\"");
  options.cloudevents_source = "no uri";
  EXPECT_EQ(Encoder::make(options).error().code, "cloudevents_source");
}

TEST(CloudEvents, OfAnEventHaveItsTypeAndItsPayloadByteForByte) {
  const MessageBatch messages = encode(structured(), one_event("{\"a\":  1.00}"));
  const Message& message = messages.messages.at(0);
  EXPECT_EQ(between(message.body, "\"type\":", ",\"subject\""), "\"order.paid\"");
  EXPECT_EQ(between(message.body, "\"subject\":", ",\"time\""), "\"k1\"");
  EXPECT_TRUE(message.body.ends_with(",\"data\":{\"a\":  1.00}}"));
}

TEST(CloudEvents, WhatIsNoJsonGoesAsBase64WithItsType) {
  const MessageBatch messages = encode(structured(), one_event("\xff\x01", "image/x"));
  EXPECT_TRUE(messages.messages.at(0).body.ends_with(
      R"("datacontenttype":"image/x","data_base64":"/wE="})"));
}

TEST(CloudEvents, OneThatIsACloudEventAlreadyIsPassedOn) {
  const MessageBatch messages =
      encode(structured(), one_event("{\"specversion\":\"1.0\"}", "application/cloudevents+json"));
  EXPECT_EQ(messages.messages.at(0).body, "{\"specversion\":\"1.0\"}");
  EXPECT_EQ(messages.messages.at(0).content_type, "application/cloudevents+json");
}

TEST(CloudEvents, ATraceContextIsAnAttribute) {
  Batch batch = one_row();
  (*batch).records[0].headers = batch.copy(R"({"traceparent": "00-ab-cd-01"})");
  const MessageBatch messages = encode(structured(), std::move(batch));
  EXPECT_EQ(between(messages.messages.at(0).body, "\"traceparent\":", ","), "\"00-ab-cd-01\"");
}

TEST(CloudEvents, ControlCharactersNeverGetIntoAttributes) {
  EncoderOptions options = structured();
  options.row_mode = true;
  Batch batch;
  batch.delta(7, {"{\"id\": \"a\\n\\u0085b\"}"}, {});
  const MessageBatch messages = encode(options, std::move(batch));
  EXPECT_EQ(between(messages.messages.at(0).body, "\"subject\":", ",\"time\""), "\"a  b\"");
}

TEST(CloudEventsBinary, HasTheAttributesInHeadersAndTheBareDataAsBody) {
  EncoderOptions options = binary();
  options.row_mode = true;
  const MessageBatch messages = encode(options, one_row());
  const Message& message = messages.messages.at(0);
  EXPECT_TRUE(message.body.starts_with(R"({"stream_table":"orders",)"));
  EXPECT_EQ(message.content_type, "application/json");
  const std::map<std::string, std::string> wanted = {{"content-type", "application/json"},
                                                     {"ce-specversion", "1.0"},
                                                     {"ce-id", std::string(message.id)},
                                                     {"ce-source", "/pgtrickle/feed%25201"},
                                                     {"ce-type", "pgtrickle.insert"},
                                                     {"ce-subject", "1"},
                                                     {"ce-time", "2026-04-27T10:15:03.412Z"},
                                                     {"ce-partitionkey", "1"},
                                                     {"ce-streamtable", "orders"},
                                                     {"ce-streamschema", "public"}};
  EXPECT_EQ(headers(message), wanted);
}

TEST(CloudEventsBinary, ValuesArePercentEncodedOnlyWhereTheBindingAsksForIt) {
  Batch batch;
  batch.event(7, "1", "type ü", "k");
  Batch again;
  again.event(7, "1", "type ü", "k");
  EXPECT_EQ(headers(encode(binary(), std::move(batch)).messages.at(0))["ce-type"], "type%20%C3%BC");
  EXPECT_EQ(headers(encode(binary({"ce_", false, "content-type"}), std::move(again))
                        .messages.at(0))["ce_type"],
            "type ü");
}

TEST(CloudEventsBinary, AConfiguredHeaderGoesFirstAndThatOfTheRecordLast) {
  EncoderOptions options = binary();
  options.headers = {{"Ce-Type", "com.example.{op}"}};
  Batch batch = one_row();
  (*batch).records[0].headers = batch.copy(R"({"ce-id": "theirs", "other": "x"})");
  const MessageBatch messages = encode(options, std::move(batch));
  auto found = headers(messages.messages.at(0));
  EXPECT_EQ(found["Ce-Type"], "com.example.insert");
  EXPECT_FALSE(found.contains("ce-type"));
  EXPECT_EQ(found["ce-id"], messages.messages.at(0).id);
  EXPECT_EQ(found["other"], "x");
}

TEST(CloudEventsBinary, NeedsASinkWithHeaders) {
  const auto made = Encoder::make(binary({}));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, "cloudevents_mode");
}

}  // namespace
}  // namespace relay::envelope
