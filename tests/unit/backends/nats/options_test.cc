#include "backends/nats/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/nats/errors.h"
#include "backends/nats/source_options.h"
#include "config/checked.h"

namespace relay::nats {
namespace {

using config::Node;

config::Values checked(std::string_view json) {
  return config::checked(json, sink_fields());
}

Result<Options> parsed(std::string_view json) {
  return parse_options(checked(json), std::nullopt);
}

std::string code_of(std::string_view json) {
  return config::code_of(parsed(json));
}

TEST(NatsOptions, HaveTheDocumentedDefaults) {
  const auto options = parsed("{}");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->endpoints.at(0).address, "localhost:4222");
  EXPECT_EQ(options->max_in_flight, 4000u);
  EXPECT_EQ(options->ack_timeout, std::chrono::seconds(5));
  EXPECT_FALSE(options->create_stream);
  EXPECT_TRUE(options->tls_verify);
  EXPECT_FALSE(options->tls);
  EXPECT_EQ(options->key_order, KeyOrder::automatic);
}

TEST(NatsOptions, AreAllRead) {
  const auto options = parsed(
      R"({"url": "nats://a,tls://b", "stream": "S", "subject": "orders.>", "create_stream": true,
          "user": "u", "password": "p", "credentials_file": "c", "tls_ca": "ca", "tls_cert": "x",
          "tls_key": "y", "tls_verify": false, "max_in_flight": 7, "ack_timeout": "250ms",
          "connect_timeout": "1s", "operation_timeout": "2s", "key_order": "one"})");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->endpoints.size(), 2u);
  EXPECT_EQ(options->endpoints[1].user, "u");
  EXPECT_EQ(options->endpoints[0].password, "p");
  EXPECT_EQ(options->stream, "S");
  EXPECT_EQ(options->stream_subjects, std::vector<std::string>{"orders.>"});
  EXPECT_EQ(options->credentials_file, "c");
  EXPECT_EQ(options->tls_ca, "ca");
  EXPECT_EQ(options->tls_cert, "x");
  EXPECT_EQ(options->tls_key, "y");
  EXPECT_TRUE(options->tls);
  EXPECT_FALSE(options->tls_verify);
  EXPECT_EQ(options->max_in_flight, 7u);
  EXPECT_EQ(options->ack_timeout, std::chrono::milliseconds(250));
  EXPECT_EQ(options->connect_timeout, std::chrono::seconds(1));
  EXPECT_EQ(options->operation_timeout, std::chrono::seconds(2));
  EXPECT_EQ(options->key_order, KeyOrder::one);
}

TEST(NatsOptions, ContradictionsAreConfigurationErrors) {
  EXPECT_EQ(code_of(R"({"subject": "orders.*"})"), "wildcard_subject");
  EXPECT_EQ(code_of(R"({"stream": "a.b"})"), "bad_stream_name");
  for (const char* json : {R"({})", R"({"stream": "S"})", R"({"stream": "S", "subject": "{op}"})",
                           R"({"stream": "S", "subject": "a", "create_stream": false})"}) {
    EXPECT_FALSE(parsed(json)->create_stream) << json;
  }
  EXPECT_EQ(parsed(R"({"subject": "orders.>"})")->new_stream, "orders");
  EXPECT_EQ(parsed(R"({"subject": "a.b.{{ region }}.c"})")->new_stream, "a_b");
  EXPECT_EQ(code_of(R"({"create_stream": true, "subject": "{op}"})"), "no_stream_name");
  EXPECT_EQ(code_of(R"({"create_stream": true, "stream": "S"})"), "no_stream_subjects");
  EXPECT_EQ(code_of(R"({"tls_cert": "x"})"), "half_a_certificate");
  EXPECT_EQ(code_of(R"({"user": "u", "token": "t"})"), "two_credentials");
  EXPECT_EQ(code_of(R"({"url": "http://x"})"), "bad_url");
}

TEST(NatsOptions, TheStreamThatIsMadeTakesWhatTheSubjectCanBecome) {
  const auto made = parsed(R"({"stream": "S", "create_stream": true, "subject": "o.{op}"})");
  EXPECT_EQ(made->stream_subjects, std::vector<std::string>{"o.*"});
  const auto by_default = parsed(R"({"stream": "S", "subject": "o.{op}"})");
  EXPECT_TRUE(by_default->create_stream);
  EXPECT_EQ(by_default->stream_subjects, std::vector<std::string>{"o.*"});
  const auto of_pipeline = parse_options(checked(R"({"stream": "S"})"), "p.{stream_table}.{op}");
  EXPECT_TRUE(of_pipeline->create_stream);
  EXPECT_EQ(of_pipeline->stream_subjects, std::vector<std::string>{"p.*.*"});
  const auto told =
      parsed(R"({"stream": "S", "create_stream": true, "stream_subjects": ["a.>", "b"]})");
  EXPECT_EQ(told->stream_subjects, (std::vector<std::string>{"a.>", "b"}));
}

TEST(NatsOptions, SubjectImpliesTheTemplate) {
  EXPECT_EQ(*default_subject(checked(R"({"subject": "orders.>"})")), "orders.{stream_table}");
  EXPECT_EQ(*default_subject(checked("{}")), "{stream_table}");
}

Result<SourceOptions> source(std::string_view json) {
  return parse_source_options(config::checked(json, source_fields()), "c");
}

TEST(NatsSourceOptions, TheStreamIsMadeOnlyWhereThatIsAsked) {
  EXPECT_FALSE(source(R"({"stream": "S"})")->connection.create_stream);
  EXPECT_TRUE(source(R"({"stream": "S", "create_stream": true})")->connection.create_stream);
}

TEST(NatsSourceOptions, TheStreamThatIsMadeTakesWhatIsRead) {
  using Subjects = std::vector<std::string>;
  EXPECT_EQ(source(R"({"stream": "S"})")->connection.stream_subjects, Subjects{"S.>"});
  EXPECT_EQ(source(R"({"stream": "S", "subject": "a.*"})")->connection.stream_subjects,
            Subjects{"a.*"});
  EXPECT_EQ(source(R"({"stream": "S", "subject": "a.b", "stream_subjects": ["a.>", "c"]})")
                ->connection.stream_subjects,
            (Subjects{"a.>", "c"}));
}

TEST(NatsErrors, TheCommandThatMakesAStreamIsSafeInAShell) {
  const std::vector<std::string> subjects = {"a.>", "b'c"};
  EXPECT_EQ(add_stream_command("S", subjects, "h:1"),
            "nats stream add S --subjects 'a.>,b'\\''c' --defaults --server nats://h:1");
  EXPECT_TRUE(add_stream_command("a;b$(c)", subjects, "h:1")
                  .starts_with("nats stream add 'a;b$(c)' --subjects"));
}

TEST(NatsErrors, NoStreamOfEverythingIsProposed) {
  const std::vector<std::string> everything = {"*"};
  for (const auto& subjects : {everything, std::vector<std::string>{}}) {
    const std::string remedy = no_stream("S", subjects, "h:1").remedy;
    EXPECT_NE(remedy.find("set stream_subjects"), std::string::npos) << remedy;
    EXPECT_NE(remedy.find("with the table's name for TABLE"), std::string::npos) << remedy;
  }
}

}  // namespace
}  // namespace relay::nats
