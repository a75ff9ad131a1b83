#include "config/pipeline_config.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <set>

#include "config/pipeline_options.h"
#include "problems.h"
#include "test_catalogue.h"

namespace relay::config {
namespace {

using namespace std::chrono_literals;

PipelineConfig from_json(std::string_view json, std::string_view direction = "forward") {
  return pipeline_from_json(test_catalogue(), "p", direction, true, json,
                            {{"env:RELAY_TEST_*"}, {}});
}

std::string json_of(const Node::Object& object) {
  return Node(object, "").to_json();
}

// One problem of a forward pipeline to NATS with these members.
std::string problem_of(const std::string& members, std::string_view direction = "forward") {
  const auto config = from_json("{" + members + "}", direction);
  EXPECT_EQ(config.problems.size(), 1u) << members;
  return config.problems.empty() ? "none" : told(config.problems)[0];
}

TEST(CatalogPipeline, ForwardFlatFormOfTheDocumentation) {
  const auto config = pipeline_from_json(test_catalogue(), "orders-to-nats", "forward", false, R"({
    "stream_table": "orders_stream",
    "sink_type": "nats",
    "nats_url": "nats://localhost:4222",
    "nats_stream": "pgtrickle",
    "subject_template": "pgtrickle.{stream_table}.{op}"
  })");
  EXPECT_EQ(told(config.problems), Told{});
  EXPECT_EQ(config.name, "orders-to-nats");
  EXPECT_EQ(config.place, "pipeline orders-to-nats");
  EXPECT_EQ(config.direction, "forward");
  EXPECT_FALSE(config.enabled);
  EXPECT_EQ(config.source_type, "outbox");
  EXPECT_EQ(json_of(config.source), R"({"stream_table":"orders_stream"})");
  EXPECT_EQ(config.sink_type, "nats");
  EXPECT_EQ(json_of(config.sink), R"({"stream":"pgtrickle","url":"nats://localhost:4222"})");
  EXPECT_EQ(config.options.subject_template, "pgtrickle.{stream_table}.{op}");
  EXPECT_EQ(find_member(config.sink, "url")->place(), "pipeline orders-to-nats, key nats_url");
}

TEST(CatalogPipeline, ReverseFlatFormOfTheDocumentation) {
  const auto config =
      pipeline_from_json(test_catalogue(), "nats-to-orders-inbox", "reverse", true, R"({
    "source_type": "nats",
    "nats_url": "nats://localhost:4222",
    "nats_stream": "commands",
    "nats_consumer": "relay-consumer",
    "inbox_table": "orders_inbox"
  })");
  EXPECT_EQ(told(config.problems), Told{});
  EXPECT_EQ(config.source_type, "nats");
  EXPECT_EQ(json_of(config.source),
            R"({"consumer":"relay-consumer","stream":"commands","url":"nats://localhost:4222"})");
  EXPECT_EQ(config.sink_type, "pg-inbox");
  EXPECT_EQ(json_of(config.sink), R"({"inbox_table":"orders_inbox"})");
}

TEST(CatalogPipeline, AMisspeltKeyOfTheFlatFormIsAnsweredWithTheKeyToWrite) {
  const std::string told =
      problem_of(R"("stream_table":"t","sink_type":"jetstream","jetstream_ulr":"u")");
  EXPECT_EQ(told.find("unknown_option | pipeline p, key jetstream_ulr: there is no option "
                      "\"jetstream_ulr\" | Did you mean \"jetstream_url\"? Known here: "
                      "jetstream_url, jetstream_password, "),
            0u)
      << told;
}

TEST(CatalogPipeline, NestedFlatAndMixedFormsAreTheSame) {
  const auto flat = from_json(R"({"stream_table":"t","sink_type":"nats","nats_url":"u",
                                  "subject_template":"s","max_in_flight":5})");
  const auto nested = from_json(R"({"source":{"type":"outbox","stream_table":"t"},
      "sink":{"type":"nats","url":"u","subject_template":"s","max_in_flight":5}})");
  const auto mixed = from_json(R"({"stream_table":"t","sink":{"type":"nats","url":"u"},
      "nats_url":"u","sink_type":"nats","subject_template":"s","nats_max_in_flight":5})");
  for (const PipelineConfig* config : {&flat, &nested, &mixed}) {
    EXPECT_EQ(told(config->problems), Told{});
    EXPECT_EQ(json_of(config->source), R"({"stream_table":"t"})");
    EXPECT_EQ(*find_member(config->sink, "url")->text(), "u");
    EXPECT_EQ(config->options.subject_template, "s");
    EXPECT_EQ(config->options.max_in_flight, 5);
  }
  EXPECT_EQ(nested.fingerprint, mixed.fingerprint);
}

TEST(CatalogPipeline, TypedFormsOfTheFunctionsAreRead) {
  const auto forward = from_json(R"({"source":{"type":"outbox","outbox":"o","group":"g"},
      "sink":{"type":"stdout"},"retention_hours":24,"max_hold_bytes":"10GiB"})");
  EXPECT_EQ(told(forward.problems), Told{});
  EXPECT_EQ(json_of(forward.source), R"({"group":"g","outbox":"o"})");
  const auto reverse = from_json(R"({"source":{"type":"nats","url":"u"},
      "sink":{"type":"inbox","inbox_name":"i","max_retries":3,"schedule":"1s"}})",
                                 "reverse");
  EXPECT_EQ(told(reverse.problems), Told{});
  EXPECT_EQ(reverse.sink_type, "pg-inbox");
  EXPECT_EQ(json_of(reverse.sink), R"({"inbox_name":"i","max_retries":3,"schedule":"1s"})");
}

TEST(CatalogPipeline, AliasesAndHyphensOfTypesMakePrefixes) {
  const auto inbox = from_json(R"({"source_type":"http","webhook_listen":"a","http_path":"b",
      "sink_type":"inbox","inbox_name":"i","inbox_url":"u","pg_inbox_inbox_table":"t"})",
                               "bridge");
  EXPECT_EQ(told(inbox.problems), Told{});
  EXPECT_EQ(inbox.source_type, "webhook");
  EXPECT_EQ(json_of(inbox.source), R"({"listen":"a","path":"b"})");
  EXPECT_EQ(json_of(inbox.sink), R"({"inbox_name":"i","inbox_table":"t","url":"u"})");
  const auto remote = from_json(R"({"source_type":"pg-outbox","pg_outbox_url":"u","outbox":"o",
      "sink_type":"file","path":"/tmp/x","format":"csv","file_fsync":false})",
                                "bridge");
  EXPECT_EQ(told(remote.problems), Told{});
  EXPECT_EQ(json_of(remote.source), R"({"outbox":"o","url":"u"})");
  EXPECT_EQ(json_of(remote.sink), R"({"format":"csv","fsync":false,"path":"/tmp/x"})");
}

TEST(CatalogPipeline, FileOptionsGoByAnyNameOfTheirBackend) {
  const auto config = from_json(R"({"stream_table":"t","sink_type":"stdout","stdout_format":"csv",
      "file_path":"/tmp/x","rotate_bytes":"1MiB"})");
  EXPECT_EQ(told(config.problems), Told{});
  EXPECT_EQ(json_of(config.sink), R"({"format":"csv","path":"/tmp/x","rotate_bytes":"1MiB"})");
  const auto pipe = from_json(R"({"source_type":"stdin","sink_type":"stdout","stdin_format":"jsonl",
      "stdout_format":"csv","follow":true,"fsync":false})",
                              "bridge");
  EXPECT_EQ(told(pipe.problems), Told{});
  EXPECT_EQ(json_of(pipe.source), R"({"follow":true,"format":"jsonl"})");
  EXPECT_EQ(json_of(pipe.sink), R"({"format":"csv","fsync":false})");
}

TEST(CatalogPipeline, AKeyOfTwoEqualEndsAsksForTheNestedForm) {
  EXPECT_EQ(problem_of(R"("source_type":"nats","sink_type":"nats","nats_url":"u")", "bridge"),
            "ambiguous | pipeline p, key nats_url: nats_url could be an option of the source and "
            "of the sink | Use the nested form: {\"source\": {\"type\": \"nats\", ...}, \"sink\": "
            "{\"type\": \"nats\", \"url\": ...}}.");
  const auto nested = from_json(R"({"source":{"type":"nats","url":"a"},
                                    "sink":{"type":"nats","url":"b"}})",
                                "bridge");
  EXPECT_EQ(told(nested.problems), Told{});
  EXPECT_EQ(json_of(nested.source), R"({"url":"a"})");
  EXPECT_EQ(json_of(nested.sink), R"({"url":"b"})");
}

TEST(CatalogPipeline, TwoDifferentValuesOfOneOptionAreAProblem) {
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink":{"type":"nats","subject_template":"a"},
                          "subject_template":"b")"),
            "conflict | pipeline p, key sink.subject_template: subject_template says something "
            "else than at pipeline p, key subject_template | Give it once.");
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink":{"type":"nats","url":"a"},"nats_url":"b")"),
            "conflict | pipeline p, key nats_url: url says something else than at pipeline p, key "
            "sink.url | Give it once.");
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink":{"type":"nats"},"sink_type":"redis")"),
            "conflict | pipeline p, key sink_type: type says \"redis\" here and \"nats\" elsewhere "
            "| Give it once.");
  EXPECT_EQ(told(from_json(R"({"stream_table":"t","sink":{"type":"inbox"},"sink_type":"pg-inbox"})")
                     .problems),
            Told{});
}

TEST(CatalogPipeline, UnknownKeysNameTheNearestOrTheForm) {
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink_type":"nats","batch_sise":5)"),
            "unknown_option | pipeline p, key batch_sise: there is no option \"batch_sise\" of "
            "pipelines, nor of outbox or nats | Did you mean \"batch_size\"?");
  const std::string other =
      problem_of(R"("stream_table":"t","sink_type":"nats","kafka_brokers":"k")");
  EXPECT_EQ(other.rfind("unknown_option | pipeline p, key kafka_brokers: there is no option "
                        "\"kafka_brokers\" of pipelines, nor of outbox or nats | An option of nats "
                        "is written \"nats_...\", or inside \"sink\"; one of the pipeline is one "
                        "of stream_table, outbox, group, ",
                        0),
            0u)
      << other;
}

TEST(CatalogPipeline, MissingTypesAreProblems) {
  EXPECT_EQ(problem_of(R"("stream_table":"t","nats_url":"u")"),
            "missing_option | pipeline p: the type of the sink is missing | Set \"sink_type\", or "
            "\"type\" inside \"sink\".");
  EXPECT_EQ(problem_of(R"("inbox_table":"t")", "reverse"),
            "missing_option | pipeline p: the type of the source is missing | Set "
            "\"source_type\", or \"type\" inside \"source\".");
  EXPECT_EQ(from_json("{}", "bridge").problems.size(), 2u);
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink":"nats","sink_type":"nats")"),
            "wrong_type | pipeline p, key sink: sink must be an object | Write it as {\"sink\": "
            "{\"type\": ..., ...}}.");
}

TEST(CatalogPipeline, WhatIsNoObjectIsAProblem) {
  EXPECT_EQ(told(from_json("[]").problems),
            Told{"wrong_type | pipeline p: the configuration must be a JSON object | "});
  EXPECT_EQ(from_json("{").problems.size(), 1u);
  EXPECT_NE(from_json("[]").fingerprint, "");
}

TEST(CatalogPipeline, EveryPipelineOptionIsRead) {
  const auto config = from_json(R"({"stream_table":"t","sink_type":"stdout","start":4711,
      "batch_size":10,"batch_bytes":"1MiB","max_in_flight":7,"retry":{"min":"1s","max":60},
      "on_reject":"park_key","max_record_bytes":"64KiB","id_prefix":"","message":"row",
      "delta_max_rows":5,"wire_format":"debezium","subject_template":"s","key_template":"{key}",
      "headers":{"a":"b"},"filter":"x > 1","columns":["x","y"],"ordering":"none",
      "full_refresh":"skip","event_envelope":true,"rate_limit":12.5})");
  EXPECT_EQ(told(config.problems), Told{});
  const PipelineOptions& options = config.options;
  EXPECT_EQ(options.start, "4711");
  EXPECT_EQ(options.batch_size, 10);
  EXPECT_EQ(options.batch_bytes, 1 << 20);
  EXPECT_EQ(options.max_in_flight, 7);
  EXPECT_EQ(options.retry_min, 1s);
  EXPECT_EQ(options.retry_max, 60s);
  EXPECT_EQ(options.on_reject, "park_key");
  EXPECT_EQ(options.max_record_bytes, 65536);
  EXPECT_EQ(options.id_prefix, "");
  EXPECT_EQ(options.message, "row");
  EXPECT_EQ(options.delta_max_rows, 5);
  EXPECT_EQ(options.wire_format, "debezium");
  EXPECT_EQ(options.subject_template, "s");
  EXPECT_EQ(options.key_template, "{key}");
  EXPECT_EQ(options.headers, (std::map<std::string, std::string>{{"a", "b"}}));
  EXPECT_EQ(options.filter, "x > 1");
  EXPECT_EQ(options.columns, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(options.ordering, "none");
  EXPECT_EQ(options.full_refresh, "skip");
  EXPECT_TRUE(options.event_envelope);
  EXPECT_EQ(options.rate_limit, 12.5);
}

TEST(CatalogPipeline, DefaultsOfTheTableAreThoseOfTheStructure) {
  const PipelineOptions read = from_json(R"({"stream_table":"t","sink_type":"stdout"})").options;
  const PipelineOptions plain;
  EXPECT_EQ(read.start, plain.start);
  EXPECT_EQ(read.batch_size, plain.batch_size);
  EXPECT_EQ(read.batch_bytes, plain.batch_bytes);
  EXPECT_EQ(read.max_in_flight, plain.max_in_flight);
  EXPECT_EQ(read.retry_min, plain.retry_min);
  EXPECT_EQ(read.retry_max, plain.retry_max);
  EXPECT_EQ(read.on_reject, plain.on_reject);
  EXPECT_EQ(read.max_record_bytes, plain.max_record_bytes);
  EXPECT_EQ(read.id_prefix, plain.id_prefix);
  EXPECT_EQ(read.message, plain.message);
  EXPECT_EQ(read.delta_max_rows, plain.delta_max_rows);
  EXPECT_EQ(read.wire_format, plain.wire_format);
  EXPECT_EQ(read.subject_template, plain.subject_template);
  EXPECT_EQ(read.key_template, plain.key_template);
  EXPECT_EQ(read.headers, plain.headers);
  EXPECT_EQ(read.filter, plain.filter);
  EXPECT_EQ(read.columns, plain.columns);
  EXPECT_EQ(read.ordering, plain.ordering);
  EXPECT_EQ(read.full_refresh, plain.full_refresh);
  EXPECT_EQ(read.event_envelope, plain.event_envelope);
  EXPECT_EQ(read.rate_limit, plain.rate_limit);
}

TEST(CatalogPipeline, WrongPipelineOptionsSayWhatIsAllowed) {
  const auto of = [](const std::string& member) {
    return problem_of(R"("stream_table":"t","sink_type":"stdout",)" + member);
  };
  EXPECT_EQ(
      of(R"("start":"yesterday")"),
      "not_allowed | pipeline p, key start: start is \"yesterday\"; it must be earliest, latest, "
      "snapshot, or the id to begin with | ");
  EXPECT_EQ(of(R"("start":-1)").rfind("not_allowed", 0), 0u);
  EXPECT_EQ(of(R"("retry":{"min":"2s","max":"1s"})"),
            "out_of_range | pipeline p, key retry.min: retry_min (2000ms) is more than retry_max "
            "(1000ms) | Lower retry_min, or raise retry_max.");
  EXPECT_EQ(of(R"("retry":{"most":"2s"})"),
            "unknown_option | pipeline p, key retry.most: there is no option \"most\" in retry | "
            "Known here: min, max.");
  EXPECT_EQ(
      of(R"("retry":5)"),
      "wrong_type | pipeline p, key retry: retry must be an object | Its members are min, max.");
  EXPECT_EQ(of(R"("message":"rows")"),
            "not_allowed | pipeline p, key message: message is \"rows\"; it must be one of delta, "
            "row | Did you mean \"row\"?");
  EXPECT_EQ(of(R"("batch_size":0)"),
            "out_of_range | pipeline p, key batch_size: batch_size is 0; it must be a whole number "
            "from 1 to 1000000 | ");
}

TEST(CatalogPipeline, AnUnresolvedReferenceIsAProblemWithItsName) {
  unsetenv("RELAY_TEST_UNSET");
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink_type":"nats",
                          "nats_password":"${env:RELAY_TEST_UNSET}")"),
            "unresolved_reference | pipeline p, key nats_password: ${env:RELAY_TEST_UNSET}: the "
            "environment variable RELAY_TEST_UNSET is not set | Set RELAY_TEST_UNSET in the "
            "environment of the relay and start it again.");
}

TEST(CatalogPipeline, AReferenceThatTheOperatorDoesNotAllowIsAProblemWithTheFlagToAdd) {
  setenv("RELAY_OTHER", "not-for-sql", 1);
  EXPECT_EQ(problem_of(R"("stream_table":"t","sink_type":"nats",
                          "nats_password":"a${env:RELAY_OTHER}")"),
            "reference_not_allowed | pipeline p, key nats_password: ${env:RELAY_OTHER} is not "
            "allowed: the operator of the relay decides which references pipelines in SQL may use "
            "| Start the relay with --allow-secret 'env:RELAY_OTHER' (or a pattern such as "
            "'env:RELAY_*'), set PGTRICKLE_RELAY_ALLOW_SECRET, or allow_secret = "
            "[\"env:RELAY_OTHER\"] in [global].");
  const auto config = from_json(R"({"stream_table":"t","sink_type":"nats",
                                   "nats_password":"${file:/etc/../etc/shadow}"})");
  ASSERT_EQ(config.problems.size(), 1u);
  EXPECT_NE(config.problems[0].remedy.find("'file:/etc/shadow'"), std::string::npos);
}

TEST(CatalogPipeline, AResolvedSecretIsInTheOptionsAndNotInAnyMessage) {
  setenv("RELAY_TEST_SECRET", "geheim", 1);
  const auto config =
      from_json(R"({"stream_table":"t","sink_type":"nats","batch_size":"${env:RELAY_TEST_SECRET}",
      "nats_url":"nats://u:${env:RELAY_TEST_SECRET}@h","nats_token":"a","sink":{"token":"${env:RELAY_TEST_SECRET}"},
      "message":"${env:RELAY_TEST_SECRET}","start":"${env:RELAY_TEST_SECRET}"})");
  EXPECT_EQ(*find_member(config.sink, "url")->text(), "nats://u:geheim@h");
  EXPECT_EQ(config.problems.size(), 4u);
  for (const std::string& text : told(config.problems)) {
    EXPECT_EQ(text.find("geheim"), std::string::npos) << text;
  }
}

TEST(CatalogPipeline, TheFingerprintChangesWithWhatMattersOnly) {
  const std::string base = R"({"stream_table":"t","sink_type":"nats","nats_url":"u"})";
  const std::string print = from_json(base).fingerprint;
  EXPECT_EQ(print.size(), 64u);
  EXPECT_EQ(print,
            from_json(R"({"nats_url":"u","sink_type":"nats", "stream_table":"t"})").fingerprint);
  std::set<std::string> prints = {print};
  for (const char* other :
       {R"({"stream_table":"x","sink_type":"nats","nats_url":"u"})",
        R"({"stream_table":"t","sink_type":"nats","nats_url":"v"})",
        R"({"stream_table":"t","sink_type":"redis","redis_url":"u"})",
        R"({"stream_table":"t","sink_type":"nats","nats_url":"u","batch_size":5})",
        R"({"stream_table":"t","sink_type":"nats","nats_url":"u","batch_size":6})",
        R"({"stream_table":"t","sink_type":"nats","nats_url":"u","nope":6})"}) {
    EXPECT_TRUE(prints.insert(from_json(other).fingerprint).second) << other;
  }
  EXPECT_TRUE(
      prints.insert(pipeline_from_json(test_catalogue(), "q", "forward", true, base).fingerprint)
          .second);
  EXPECT_TRUE(
      prints.insert(pipeline_from_json(test_catalogue(), "p", "forward", false, base).fingerprint)
          .second);
}

TEST(CatalogPipeline, TheFingerprintChangesWithASecretAndDoesNotHoldIt) {
  const char* json =
      R"({"stream_table":"t","sink_type":"nats","nats_password":"${env:RELAY_TEST_S}"})";
  setenv("RELAY_TEST_S", "geheim", 1);
  const std::string before = from_json(json).fingerprint;
  setenv("RELAY_TEST_S", "anders", 1);
  EXPECT_NE(from_json(json).fingerprint, before);
  EXPECT_EQ(before.find("geheim"), std::string::npos);
}

TEST(CatalogPipeline, ArbitraryJsonNeverCrashesTheReader) {
  const auto word = rc::gen::elementOf(std::vector<std::string>{"\"source\"",
                                                                "\"sink\"",
                                                                "\"type\"",
                                                                "\"nats\"",
                                                                "\"outbox\"",
                                                                "\"stdout\"",
                                                                "\"nats_url\"",
                                                                "\"headers\"",
                                                                "\"retry\"",
                                                                "\"start\"",
                                                                "\"path\"",
                                                                "\"sink_type\"",
                                                                "{",
                                                                "}",
                                                                "[",
                                                                "]",
                                                                ":",
                                                                ",",
                                                                "1",
                                                                "-5",
                                                                "true",
                                                                "null",
                                                                "\"${env:X}\"",
                                                                "\"${\""});
  EXPECT_TRUE(rc::check("words", [&] {
    const auto words = *rc::gen::container<std::vector<std::string>>(word);
    std::string json;
    for (const std::string& w : words) json += w;
    RC_ASSERT(!from_json(json, "bridge").fingerprint.empty());
  }));
  const auto scalar = rc::gen::elementOf(std::vector<std::string>{
      "1", "\"nats\"", "\"file\"", "null", "{}", "[]", "{\"type\":\"file\"}", "{\"type\":7}",
      "{\"type\":\"nats\",\"headers\":{},\"start\":null}", "\"${file:relative}\"", "1e300"});
  const auto key = rc::gen::elementOf(std::vector<std::string>{
      "source", "sink", "source_type", "sink_type", "nats_url", "file_path", "path", "headers",
      "retry", "start", "columns", "rate_limit", "stream_table", "inbox_table", "nope", ""});
  EXPECT_TRUE(rc::check("objects", [&] {
    const auto members = *rc::gen::container<std::map<std::string, std::string>>(key, scalar);
    std::string json;
    for (const auto& [name, value] : members) {
      json += (json.empty() ? "{" : ",") + ("\"" + name + "\":" + value);
    }
    json = json.empty() ? "{}" : json + "}";
    const auto direction =
        *rc::gen::elementOf(std::vector<std::string>{"forward", "reverse", "bridge", ""});
    RC_ASSERT(!from_json(json, direction).fingerprint.empty());
  }));
}

}  // namespace
}  // namespace relay::config
