#include "backends/redis/options.h"

#include <gtest/gtest.h>

#include <string>

#include "config/checked.h"

namespace relay::redis {
namespace {

Result<SinkOptions> sink(std::string_view json) {
  return parse_sink_options(config::checked(json, sink_fields()));
}

Result<SourceOptions> source(std::string_view json) {
  return parse_source_options(config::checked(json, source_fields()), "group", "host");
}

std::string code_of(std::string_view json) {
  return config::code_of(sink(json));
}

TEST(RedisOptions, HaveTheDocumentedDefaults) {
  const auto options = sink("{}");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->connection.endpoints.at(0).address, "localhost:6379");
  EXPECT_EQ(options->connection.endpoints.at(0).database, 0);
  EXPECT_TRUE(options->connection.tls_verify);
  EXPECT_EQ(options->connection.response_timeout, std::chrono::seconds(5));
  EXPECT_EQ(options->field_mode, FieldMode::payload);
  EXPECT_EQ(options->maxlen, std::nullopt);
  EXPECT_EQ(options->max_in_flight, 1000u);
  EXPECT_EQ(options->max_message_bytes, 512u << 20);
}

TEST(RedisOptions, OfASourceHaveTheDocumentedDefaults) {
  const auto options = source(R"({"stream_key": "orders"})");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->stream_key, "orders");
  EXPECT_EQ(options->group, "group");
  EXPECT_EQ(options->consumer, "host");
  EXPECT_EQ(options->start, "0");
  EXPECT_EQ(options->count, 500u);
  EXPECT_EQ(options->claim_idle, std::chrono::minutes(1));
}

TEST(RedisOptions, UrlsSayAllThatAConnectionNeeds) {
  const auto options = parse_endpoints("rediss://me:p%40ss@[::1]:7000/3, redis://:only@b,c");
  ASSERT_TRUE(options);
  ASSERT_EQ(options->size(), 3u);
  const Endpoint& first = options->at(0);
  EXPECT_TRUE(first.tls);
  EXPECT_EQ(first.user, "me");
  EXPECT_EQ(first.password, "p@ss");
  EXPECT_EQ(first.host, "::1");
  EXPECT_EQ(first.port, "7000");
  EXPECT_EQ(first.address, "[::1]:7000");
  EXPECT_EQ(first.database, 3);
  EXPECT_EQ(options->at(1).user, "");
  EXPECT_EQ(options->at(1).password, "only");
  EXPECT_EQ(options->at(2).address, "c:6379");
  EXPECT_FALSE(options->at(2).tls);
}

TEST(RedisOptions, UrlsThatAreNoneAreConfigurationErrors) {
  for (const auto* url : {"http://a", "redis://", "redis://a:0", "redis://a:b", "redis://a/x",
                          "redis://a/-1", "redis://u:%zz@a", "redis://a,,b"}) {
    const auto parsed = parse_endpoints(url);
    ASSERT_FALSE(parsed) << url;
    EXPECT_EQ(parsed.error().error_class, ErrorClass::misconfigured);
    EXPECT_EQ(parsed.error().message.find("zz"), std::string::npos) << "shows a secret";
  }
}

TEST(RedisOptions, OwnOptionsGoBeforeTheUrl) {
  const auto options =
      sink(R"({"url": "redis://a:b@h/1", "user": "u", "password": "p", "database": 2})");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->connection.endpoints[0].user, "u");
  EXPECT_EQ(options->connection.endpoints[0].password, "p");
  EXPECT_EQ(options->connection.endpoints[0].database, 2);
}

TEST(RedisOptions, ContradictionsAreConfigurationErrors) {
  EXPECT_EQ(code_of(R"({"url": "rediss://a", "tls_cert": "x"})"), "half_a_certificate");
  EXPECT_EQ(code_of(R"({"url": "redis://a", "tls_ca": "x"})"), "tls_without_rediss");
  EXPECT_EQ(code_of(R"({"user": "u"})"), "no_password");
}

}  // namespace
}  // namespace relay::redis
