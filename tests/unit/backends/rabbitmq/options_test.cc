#include "backends/rabbitmq/options.h"

#include <gtest/gtest.h>

#include <string>

#include "config/checked.h"

namespace relay::rabbitmq {
namespace {

Result<SinkOptions> sink(std::string_view json) {
  return parse_sink_options(config::checked(json, sink_fields()));
}

Result<SourceOptions> source(std::string_view json) {
  return parse_source_options(config::checked(json, source_fields()));
}

std::string code_of(std::string_view json) {
  return config::code_of(sink(json));
}

TEST(RabbitOptions, HaveTheDocumentedDefaults) {
  const auto options = sink("{}");
  ASSERT_TRUE(options);
  const Endpoint& endpoint = options->connection.endpoints.at(0);
  EXPECT_EQ(endpoint.address, "localhost:5672");
  EXPECT_EQ(endpoint.vhost, "/");
  EXPECT_EQ(endpoint.user, "guest");
  EXPECT_EQ(options->exchange, "");
  EXPECT_EQ(options->exchange_type, "topic");
  EXPECT_TRUE(options->declare);
  EXPECT_TRUE(options->mandatory);
  EXPECT_TRUE(options->persistent);
  EXPECT_EQ(options->max_in_flight, 1000u);
  EXPECT_EQ(options->key_order, KeyOrder::automatic);
  EXPECT_TRUE(options->connection.tls_verify);
}

TEST(RabbitOptions, OfASourceHaveTheDocumentedDefaults) {
  const auto options = source(R"({"queue": "q"})");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->queue, "q");
  EXPECT_TRUE(options->declare);
  EXPECT_EQ(options->queue_type, "quorum");
  EXPECT_EQ(options->prefetch, 1000);
  EXPECT_TRUE(options->bindings.empty());
}

TEST(RabbitOptions, BindingsAreExchangesWithTheirKeys) {
  const auto options = source(R"({"queue": "q", "bind": {"a": "x.*, y.#", "b": ""}})");
  ASSERT_TRUE(options);
  using Binding = std::pair<std::string, std::string>;
  EXPECT_EQ(options->bindings, (std::vector<Binding>{{"a", "x.*"}, {"a", "y.#"}, {"b", ""}}));
}

TEST(RabbitOptions, UrlsSayAllThatAConnectionNeeds) {
  const auto parsed = parse_endpoints("amqps://me:p%40ss@[::1]/a%2Fb, amqp://h:5000/, x");
  ASSERT_TRUE(parsed);
  ASSERT_EQ(parsed->size(), 3u);
  const Endpoint& first = parsed->at(0);
  EXPECT_TRUE(first.tls);
  EXPECT_EQ(first.user, "me");
  EXPECT_EQ(first.password, "p@ss");
  EXPECT_EQ(first.host, "::1");
  EXPECT_EQ(first.port, 5671);
  EXPECT_EQ(first.vhost, "a/b");
  EXPECT_EQ(parsed->at(1).vhost, "/");
  EXPECT_EQ(parsed->at(1).port, 5000);
  EXPECT_EQ(parsed->at(2).address, "x:5672");
}

TEST(RabbitOptions, UrlsThatAreNoneAreConfigurationErrors) {
  for (const auto* url : {"http://a", "amqp://", "amqp://a:0", "amqp://a:b", "amqp://u:%zz@a",
                          "amqp://a/%zz", "amqp://a,,b"}) {
    const auto parsed = parse_endpoints(url);
    ASSERT_FALSE(parsed) << url;
    EXPECT_EQ(parsed.error().error_class, ErrorClass::misconfigured);
  }
}

TEST(RabbitOptions, ContradictionsAreConfigurationErrors) {
  EXPECT_EQ(code_of(R"({"url": "amqps://a", "tls_cert": "x"})"), "half_a_certificate");
  EXPECT_EQ(code_of(R"({"url": "amqp://a", "tls_ca": "x"})"), "tls_without_amqps");
  EXPECT_EQ(code_of(R"({"exchange": ")" + std::string(256, 'x') + R"("})"), "bad_exchange");
}

}  // namespace
}  // namespace relay::rabbitmq
