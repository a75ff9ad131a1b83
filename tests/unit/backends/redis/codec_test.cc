#include "backends/redis/codec.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::redis {
namespace {

std::optional<Reply> read(ReplyReader& reader, std::string_view bytes) {
  reader.feed(bytes);
  auto reply = reader.next();
  EXPECT_TRUE(reply) << reply.error().message;
  return reply ? std::move(*reply) : std::nullopt;
}

TEST(RedisCodec, WritesCommandsWithTheLengthOfEachArgument) {
  std::string out;
  append_command(out, {"XADD", "k", std::string_view("a\r\n\0b", 5)});
  EXPECT_EQ(out, std::string("*3\r\n$4\r\nXADD\r\n$1\r\nk\r\n$5\r\na\r\n") + '\0' + "b\r\n");
}

TEST(RedisCodec, ReadsEachKindOfReply) {
  ReplyReader reader;
  EXPECT_EQ(read(reader, "+OK\r\n")->kind, Reply::Kind::status);
  const auto error = read(reader, "-OOM no\r\n");
  EXPECT_TRUE(error->is_error());
  EXPECT_EQ(error->text, "OOM no");
  EXPECT_EQ(read(reader, ":42\r\n")->integer, 42);
}

TEST(RedisCodec, KeepsBytesThatAreNoText) {
  ReplyReader reader;
  const auto reply = read(reader, std::string_view("$3\r\na\0b\r\n", 9));
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->text, std::string("a\0b", 3));
}

TEST(RedisCodec, TellsNilFromEmptyText) {
  ReplyReader reader;
  EXPECT_EQ(read(reader, "$-1\r\n")->kind, Reply::Kind::nil);
  EXPECT_EQ(read(reader, "*-1\r\n")->kind, Reply::Kind::nil);
  EXPECT_EQ(read(reader, "$0\r\n\r\n")->kind, Reply::Kind::text);
}

TEST(RedisCodec, ReadsArraysOfArrays) {
  ReplyReader reader;
  const auto reply = read(reader, "*2\r\n*2\r\n$1\r\na\r\n:1\r\n*2\r\n$1\r\nb\r\n$-1\r\n");
  ASSERT_TRUE(reply && reply->is_array());
  ASSERT_EQ(reply->elements.size(), 2u);
  EXPECT_EQ(reply->elements[0].elements[0].text, "a");
  EXPECT_EQ(reply->elements[0].elements[1].integer, 1);
  EXPECT_EQ(reply->elements[1].elements[1].kind, Reply::Kind::nil);
}

TEST(RedisCodec, WaitsForTheRestOfAReplyThatIsCutAnywhere) {
  const std::string whole = "*2\r\n$5\r\nhello\r\n*1\r\n-ERR x\r\n";
  for (std::size_t cut = 1; cut < whole.size(); ++cut) {
    ReplyReader reader;
    EXPECT_FALSE(read(reader, whole.substr(0, cut))) << cut;
    const auto reply = read(reader, whole.substr(cut));
    ASSERT_TRUE(reply) << cut;
    EXPECT_EQ(reply->elements[1].elements[0].text, "ERR x");
  }
}

TEST(RedisCodec, GivesRepliesThatCameTogetherOneByOne) {
  ReplyReader reader;
  reader.feed("+a\r\n+b\r\n+c");
  EXPECT_EQ((*reader.next())->text, "a");
  EXPECT_EQ((*reader.next())->text, "b");
  EXPECT_FALSE(*reader.next());
}

TEST(RedisCodec, WhatIsNoRedisProtocolIsAnError) {
  ReplyReader reader;
  reader.feed("HTTP/1.1 400 Bad Request\r\n");
  const auto reply = reader.next();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().error_class, ErrorClass::transient);
}

TEST(RedisCodec, AnArrayOfAbsurdLengthIsRefused) {
  ReplyReader reader;
  reader.feed("*2000000000\r\n");
  EXPECT_FALSE(reader.next());
}

}  // namespace
}  // namespace relay::redis
