#include "backends/pg_inbox/row_values.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <vector>

namespace relay::pg_inbox {
namespace {

using Values = std::vector<std::optional<std::string>>;

std::uint32_t number(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// Reads an array as the server does.
Values read_array(std::string_view bytes, std::uint32_t element) {
  EXPECT_EQ(number(bytes, 0), 1u) << "dimensions";
  EXPECT_EQ(number(bytes, 8), element);
  EXPECT_EQ(number(bytes, 16), 1u) << "lower bound";
  Values values;
  std::size_t at = 20;
  bool null = false;
  for (std::uint32_t i = 0; i < number(bytes, 12); ++i) {
    const std::uint32_t length = number(bytes, at);
    at += 4;
    if (length == 0xffffffff) {
      values.emplace_back();
      null = true;
    } else {
      values.emplace_back(std::string(bytes.substr(at, length)));
      at += length;
    }
  }
  EXPECT_EQ(at, bytes.size());
  EXPECT_EQ(number(bytes, 4), null ? 1u : 0u);
  return values;
}

std::optional<std::string> value_of(InboxField field, const Message& message,
                                    ColumnKind kind = ColumnKind::text, bool raw = false) {
  BinaryArray column(BinaryArray::Element::text);
  add_value(column, field, kind, message, "pipe", raw);
  return read_array(column.finish(), 25).at(0);
}

TEST(BinaryArray, IsWhatTheServerReads) {
  BinaryArray array(BinaryArray::Element::bytea);
  EXPECT_EQ(read_array(array.finish(), 17), Values{});
  array.add("a");
  EXPECT_EQ(read_array(array.finish(), 17), (Values{"a"}));
  array.add_null();
  array.add("");
  array.add(std::string(300, 'x'));
  EXPECT_EQ(read_array(array.finish(), 17), (Values{"a", std::nullopt, "", std::string(300, 'x')}));
}

TEST(RowValues, EachFieldIsFromItsPlace) {
  const std::vector<Header> headers{{"trace_id", "t"}};
  const Message message{.id = "i",
                        .subject = "s",
                        .key = "k",
                        .op = "o",
                        .body = "1",
                        .content_type = "application/json",
                        .stream_table = {},
                        .headers = headers,
                        .refused = {}};
  EXPECT_EQ(value_of(InboxField::event_id, message), "i");
  EXPECT_EQ(value_of(InboxField::event_type, message), "o");
  EXPECT_EQ(value_of(InboxField::source, message), "pipe");
  EXPECT_EQ(value_of(InboxField::aggregate_id, message), "k");
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::json), "1");
  EXPECT_EQ(value_of(InboxField::trace_id, message), "t");
  EXPECT_EQ(value_of(InboxField::subject, message), "s");
  EXPECT_EQ(value_of(InboxField::headers, message), R"({"trace_id":"t"})");
}

TEST(RowValues, WhatAMessageLacksIsNull) {
  Message message;
  message.id = "i";
  message.body = "1";
  for (const InboxField field : {InboxField::event_type, InboxField::aggregate_id,
                                 InboxField::trace_id, InboxField::subject, InboxField::headers}) {
    EXPECT_EQ(value_of(field, message), std::nullopt) << to_string(field);
  }
}

TEST(RowValues, APayloadIsRawWhereItsColumnCannotHoldIt) {
  Message message;
  message.id = "i";
  message.body = "not json";
  message.content_type = "text/plain";
  const std::string raw = R"({"raw_base64":"bm90IGpzb24=","content_type":"text/plain"})";
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::json), raw);
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::text), "not json");
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::text, true), raw);
  message.body = "\xff";
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::bytes), "\xff");
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::text),
            R"({"raw_base64":"/w==","content_type":"text/plain"})");
  message.tombstone = true;
  EXPECT_EQ(value_of(InboxField::payload, message, ColumnKind::json), std::nullopt);
}

TEST(RowValues, ABinaryKeyIsHexadecimalAndAnIdStaysAsItIs) {
  Message message;
  message.id = "\xff";
  message.key = std::string_view("\0\x2a", 2);
  message.body = "1";
  EXPECT_EQ(value_of(InboxField::aggregate_id, message), "\\x002a");
  EXPECT_EQ(value_of(InboxField::event_id, message), "\xff") << "the server refuses that message";
}

TEST(RowValues, HeadersAreAnObjectWithoutIdAndOperation) {
  const std::vector<Header> headers{{"a\"b", "1\n2"}, {"bin", "\xff"}, {"pgtrickle-id", "other"}};
  Message message;
  message.id = "i";
  message.op = "insert";
  message.body = "1";
  message.stream_table = "orders";
  message.headers = headers;
  message.outbox_id = 42;
  message.full_refresh = true;
  EXPECT_EQ(
      headers_json(message),
      R"({"pgtrickle-stream-table":"orders","pgtrickle-outbox-id":"42",)"
      R"("pgtrickle-full-refresh":"true","a\"b":"1\n2","bin":"\\xff","pgtrickle-id":"other"})");
}

TEST(RowValues, TheTraceIsAHeaderOrAPartOfTraceparent) {
  const auto trace = [](std::vector<Header> headers) {
    Message message;
    message.id = "i";
    message.body = "1";
    message.headers = headers;
    return std::string(trace_id_of(message));
  };
  const std::string_view parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_EQ(trace({{"traceparent", parent}}), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace({{"Traceparent", parent}, {"Trace_ID", "mine"}}), "mine");
  EXPECT_EQ(trace({{"traceparent", "nonsense"}}), "");
  EXPECT_EQ(trace({{"x", "y"}}), "");
}

}  // namespace
}  // namespace relay::pg_inbox
