#include <gtest/gtest.h>

#include <cstdlib>

#include "config/pipeline_config.h"
#include "problems.h"
#include "test_catalogue.h"

namespace relay::config {
namespace {

FileConfig parsed(std::string_view text) {
  auto config = parse_config_file(test_catalogue(), text, "relay.toml");
  EXPECT_TRUE(config) << config.error().message;
  return config ? std::move(*config) : FileConfig{};
}

std::string refused(std::string_view text) {
  const auto config = parse_config_file(test_catalogue(), text, "relay.toml");
  if (!config) return told({config.error()})[0];
  return config->problems.empty() ? "accepted" : told({combined(config->problems)})[0];
}

std::string json_of(const Node::Object& object) {
  return Node(object, "").to_json();
}

constexpr std::string_view kDocumented = R"(# relay.toml
[global]
postgres_url = "postgres://user:pass@localhost/mydb"
metrics_bind = "0.0.0.0:9090"

[[pipeline]]
name = "revenue-to-kafka"
source = { type = "outbox", stream_table = "revenue_by_region" }
sink = { type = "kafka", brokers = "kafka:9092", topic = "revenue-deltas" }

[[pipeline]]
name = "orders-to-nats"
source = { type = "outbox", stream_table = "order_view" }
sink = { type = "nats", url = "nats://localhost:4222", subject = "orders.>" }

[[pipeline]]
name = "alerts-to-webhook"
source = { type = "outbox", stream_table = "fraud_alerts" }
sink = { type = "webhook", url = "https://hooks.example.com/fraud", method = "POST" }
)";

TEST(ConfigFile, TheDocumentedFileIsRead) {
  const FileConfig config = parsed(kDocumented);
  EXPECT_EQ(json_of(config.global), R"({"metrics_bind":"0.0.0.0:9090",)"
                                    R"("postgres_url":"postgres://user:pass@localhost/mydb"})");
  ASSERT_EQ(config.pipelines.size(), 3u);
  for (const PipelineConfig& pipeline : config.pipelines) {
    EXPECT_EQ(told(pipeline.problems), Told{});
    EXPECT_EQ(pipeline.direction, "forward");
    EXPECT_TRUE(pipeline.enabled);
    EXPECT_EQ(pipeline.source_type, "outbox");
  }
  const PipelineConfig& kafka = config.pipelines[0];
  EXPECT_EQ(kafka.name, "revenue-to-kafka");
  EXPECT_EQ(kafka.place, "relay.toml:6:1");
  EXPECT_EQ(json_of(kafka.source), R"({"stream_table":"revenue_by_region"})");
  EXPECT_EQ(kafka.sink_type, "kafka");
  EXPECT_EQ(json_of(kafka.sink), R"({"brokers":"kafka:9092","topic":"revenue-deltas"})");
  const PipelineConfig& nats = config.pipelines[1];
  EXPECT_EQ(json_of(nats.sink), R"({"subject":"orders.>","url":"nats://localhost:4222"})");
  EXPECT_EQ(nats.options.subject_template, std::nullopt);
  EXPECT_EQ(json_of(config.pipelines[2].sink),
            R"({"method":"POST","url":"https://hooks.example.com/fraud"})");
}

TEST(ConfigFile, TheDocumentedSubjectTemplateInTheSinkBelongsToThePipeline) {
  const FileConfig config = parsed(R"(
[[pipeline]]
name = "regional-revenue"
source = { type = "outbox", stream_table = "revenue_by_region" }
sink = { type = "nats", url = "nats://localhost:4222", subject_template = "revenue.{{ region }}" }
)");
  ASSERT_EQ(config.pipelines.size(), 1u);
  EXPECT_EQ(told(config.pipelines[0].problems), Told{});
  EXPECT_EQ(config.pipelines[0].options.subject_template, "revenue.{{ region }}");
  EXPECT_EQ(json_of(config.pipelines[0].sink), R"({"url":"nats://localhost:4222"})");
}

TEST(ConfigFile, TheDocumentedGroupAndInboxAreRead) {
  EXPECT_EQ(json_of(parsed("[global]\nha_group = \"relay-primary\"\n").global),
            R"({"ha_group":"relay-primary"})");
  const FileConfig config = parsed(R"(
[[pipeline]]
name = "payments-from-kafka"
source = { type = "kafka", brokers = "kafka:9092", topic = "payment-events", group_id = "pgtrickle-inbox" }
sink = { type = "inbox", inbox_name = "payment_events" }
)");
  ASSERT_EQ(config.pipelines.size(), 1u);
  const PipelineConfig& pipeline = config.pipelines[0];
  EXPECT_EQ(told(pipeline.problems), Told{});
  EXPECT_EQ(pipeline.direction, "reverse");
  EXPECT_EQ(pipeline.source_type, "kafka");
  EXPECT_EQ(json_of(pipeline.source),
            R"({"brokers":"kafka:9092","group_id":"pgtrickle-inbox","topic":"payment-events"})");
  EXPECT_EQ(pipeline.sink_type, "pg-inbox");
  EXPECT_EQ(json_of(pipeline.sink), R"({"inbox_name":"payment_events"})");
}

TEST(ConfigFile, FlatKeysAndPipelineOptionsWorkInFilesToo) {
  const FileConfig config = parsed(R"(
[[pipeline]]
name = "p"
enabled = false
stream_table = "t"
sink_type = "nats"
nats_url = "u"
retry = { min = "1s", max = "2s" }
start = 5
)");
  ASSERT_EQ(config.pipelines.size(), 1u);
  const PipelineConfig& pipeline = config.pipelines[0];
  EXPECT_EQ(told(pipeline.problems), Told{});
  EXPECT_FALSE(pipeline.enabled);
  EXPECT_EQ(json_of(pipeline.sink), R"({"url":"u"})");
  EXPECT_EQ(pipeline.options.retry_max, std::chrono::seconds(2));
  EXPECT_EQ(pipeline.options.start, "5");
}

TEST(ConfigFile, AnInvalidPipelineStopsAloneWithEveryProblemAndItsPlace) {
  unsetenv("RELAY_TEST_UNSET");
  const FileConfig config = parsed(R"([[pipeline]]
name = "good"
source = { type = "outbox", stream_table = "t" }
sink = { type = "stdout" }

[[pipeline]]
name = "bad"
enabled = "maybe"
source = { type = "outbox", stream_table = "t" }
batch_size = "many"
wire_fromat = "native"
retention_hours = 5
sink = { type = "nats", url = "${RELAY_TEST_UNSET}" }
)");
  ASSERT_EQ(config.pipelines.size(), 2u);
  EXPECT_EQ(told(config.pipelines[0].problems), Told{});
  EXPECT_EQ(
      told(config.pipelines[1].problems),
      (Told{
          "wrong_type | relay.toml:8:11: enabled is \"maybe\"; it must be true or false | ",
          "unresolved_reference | relay.toml:13:31: ${RELAY_TEST_UNSET}: the environment variable "
          "RELAY_TEST_UNSET is not set | Set RELAY_TEST_UNSET in the environment of the relay and "
          "start it again.",
          "unknown_option | relay.toml:11:15: there is no option \"wire_fromat\" of pipelines, nor "
          "of outbox or nats | Did you mean \"wire_format\"?",
          "not_allowed | relay.toml:12:19: retention_hours is for pipelines that are configured in "
          "SQL | Give it to pgtrickle.enable_outbox(), or configure the pipeline in SQL.",
          "wrong_type | relay.toml:10:14: batch_size is \"many\"; it must be a whole number from 1 "
          "to 1000000 | "}));
}

TEST(ConfigFile, PipelinesOfOneNameDoNotRunAndNoPipelineIsNameless) {
  const FileConfig config = parsed(R"([[pipeline]]
name = "p"
source = { type = "outbox", stream_table = "t" }
sink = { type = "stdout" }
[[pipeline]]
name = "p"
source = { type = "outbox", stream_table = "t" }
sink = { type = "stdout" }
[[pipeline]]
source = { type = "outbox", stream_table = "t" }
sink = { type = "stdout" }
)");
  ASSERT_EQ(config.pipelines.size(), 2u);
  EXPECT_EQ(told(config.pipelines[0].problems),
            Told{"conflict | relay.toml:5:1: there is another pipeline \"p\" at relay.toml:1:1 | "
                 "Give each pipeline its own name."});
  EXPECT_EQ(config.pipelines[1].name, "unnamed pipeline at relay.toml:9:1");
  EXPECT_EQ(told(config.pipelines[1].problems),
            Told{"missing_option | relay.toml:9:1: the pipeline has no name | Give it one: name = "
                 "\"...\"."});
}

TEST(ConfigFile, MovingLinesDoesNotChangeAFingerprint) {
  const FileConfig before = parsed(kDocumented);
  const FileConfig after = parsed("\n\n# more\n" + std::string(kDocumented));
  for (std::size_t i = 0; i < before.pipelines.size(); ++i) {
    EXPECT_EQ(before.pipelines[i].fingerprint, after.pipelines[i].fingerprint);
  }
}

TEST(ConfigFile, AFileThatCannotBeParsedIsRefusedWithLineAndColumn) {
  EXPECT_EQ(refused("[global]\npostgres_url = \n"),
            "not_toml | relay.toml:2:16: Error while parsing key-value pair: expected "
            "value, saw '\\n' | Correct the file; nothing of it was taken.");
}

TEST(ConfigFile, AWrongGlobalSectionIsRefusedWithEveryProblem) {
  EXPECT_EQ(
      refused("[global]\nlog_fromat = \"json\"\nha_mode = \"both\"\npool_size = 0\n"),
      "unknown_option | [global]: relay.toml:2:14: there is no option \"log_fromat\"; [global]: "
      "relay.toml:3:11: "
      "ha_mode is \"both\"; it must be one of shared, leader; [global]: relay.toml:4:13: pool_size "
      "is "
      "0; it must be a whole number from 1 to 1000 | Did you mean \"log_format\"? Known "
      "here: postgres_url, metrics_addr, log_format, log_level, relay_group_id, admin_token, "
      "drain_timeout, discovery_interval, lease_timeout, stalled_after, ha_mode, pool_size, "
      "slot_wal_limit, idle_slot_wal_limit, allow_secret, allow_file.");
  EXPECT_EQ(refused("global = 5\n").rfind("wrong_type | relay.toml:1:10: global", 0), 0u);
  unsetenv("RELAY_TEST_UNSET");
  EXPECT_EQ(refused("[global]\npostgres_url = \"${env:RELAY_TEST_UNSET}\"\n")
                .rfind("unresolved_reference | relay.toml:2:16: ${env:RELAY_TEST_UNSET}", 0),
            0u);
}

TEST(ConfigFile, UnknownSectionsAreRefused) {
  EXPECT_EQ(refused("[[pipelines]]\nname = \"p\"\n"),
            "unknown_option | relay.toml:1:1: there is no \"pipelines\" in this file | Did you "
            "mean \"pipeline\"? Known are "
            "[global] and [[pipeline]].");
  EXPECT_EQ(refused("[pipeline]\nname = \"p\"\n"),
            "wrong_type | relay.toml:1:1: pipeline must be a list of tables | Begin each pipeline "
            "with [[pipeline]].");
}

TEST(ConfigFile, SecretsInGlobalAreResolved) {
  setenv("RELAY_TEST_URL", "postgres://u:geheim@h/db", 1);
  const FileConfig config = parsed("[global]\npostgres_url = \"${RELAY_TEST_URL}\"\n");
  EXPECT_EQ(*find_member(config.global, "postgres_url")->text(), "postgres://u:geheim@h/db");
}

TEST(ConfigFile, AnEmptyFileIsAnEmptyConfiguration) {
  const FileConfig config = parsed("");
  EXPECT_TRUE(config.global.empty());
  EXPECT_TRUE(config.pipelines.empty());
}

}  // namespace
}  // namespace relay::config
