#include "config/fields.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <cstdlib>

#include "config/option_table.h"
#include "problems.h"

namespace relay::config {
namespace {

using namespace std::chrono_literals;

struct Wanted {
  std::string url;
  std::string subject;
  std::int64_t count = 0;
  double ratio = 0;
  bool verify = false;
  std::chrono::milliseconds timeout{};
  std::size_t limit = 0;
  std::string storage;
  std::vector<std::string> names;
  std::map<std::string, std::string> headers;
  std::optional<std::int64_t> token;
};

constexpr Option<Wanted> kOptions[] = {
    {{.name = "url", .meaning = "where the server is", .required = true, .secret = true},
     fills<&Wanted::url>},
    {{.name = "subject", .aliases = "topic,channel"}, fills<&Wanted::subject>},
    {{.name = "count", .type = FieldType::integer, .default_text = "500", .min = 1, .max = 1000},
     fills<&Wanted::count>},
    {{.name = "ratio", .type = FieldType::number, .default_text = "0.5", .max = 1},
     fills<&Wanted::ratio>},
    {{.name = "verify", .type = FieldType::boolean, .default_text = "true"},
     fills<&Wanted::verify>},
    {{.name = "timeout", .type = FieldType::duration, .default_text = "5s", .min = 0.1},
     fills<&Wanted::timeout>},
    {{.name = "limit", .type = FieldType::bytes, .default_text = "8MiB"}, fills<&Wanted::limit>},
    {{.name = "storage",
      .type = FieldType::choice,
      .default_text = "file",
      .choices = "memory,file"},
     fills<&Wanted::storage>},
    {{.name = "names", .type = FieldType::list}, fills<&Wanted::names>},
    {{.name = "headers", .type = FieldType::map}, fills<&Wanted::headers>},
    {{.name = "token", .type = FieldType::integer, .secret = true}, fills<&Wanted::token>},
};

constexpr auto kTable = fields_of(kOptions);

Wanted filled(const Values& values) {
  auto wanted = config::filled<Wanted>(kOptions, values);
  EXPECT_TRUE(wanted);
  return *wanted;
}

Checked checked(std::string_view json) {
  const auto node = parse_json(json, "pipeline p");
  EXPECT_TRUE(node) << json;
  return check(*node->object(), kTable, "pipeline p, sink");
}

// One problem of `"url":"x"` and one other member.
std::string problem_of(const std::string& member) {
  const Checked result = checked(R"({"url":"x",)" + member + "}");
  EXPECT_EQ(result.problems.size(), 1u) << member;
  return result.problems.empty() ? "none" : told(result.problems)[0];
}

TEST(Fields, ValuesHaveTheirTypes) {
  const Checked result = checked(R"({"url":"x","subject":"s","count":7,"ratio":0.25,"verify":false,
      "timeout":"1m30s","limit":"2KiB","storage":"memory","names":["a","b"],
      "headers":{"x":"1","n":5,"b":true}})");
  EXPECT_EQ(told(result.problems), Told{});
  const Values& values = result.values;
  const Wanted wanted = filled(values);
  EXPECT_EQ(wanted.subject, "s");
  EXPECT_EQ(wanted.count, 7);
  EXPECT_EQ(wanted.ratio, 0.25);
  EXPECT_FALSE(wanted.verify);
  EXPECT_EQ(wanted.timeout, 90s);
  EXPECT_EQ(wanted.limit, 2048u);
  EXPECT_EQ(wanted.storage, "memory");
  EXPECT_EQ(wanted.names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(wanted.headers,
            (std::map<std::string, std::string>{{"x", "1"}, {"n", "5"}, {"b", "true"}}));
  EXPECT_EQ(wanted.token, std::nullopt);
  EXPECT_EQ(values.place("count"), "pipeline p, key count");
  EXPECT_TRUE(values.has("count"));
}

TEST(Fields, WhatIsNotSetHasItsDefault) {
  const Values values = checked(R"({"url":"x","count":null})").values;
  EXPECT_FALSE(values.has("count"));
  const Wanted wanted = filled(values);
  EXPECT_EQ(wanted.count, 500);
  EXPECT_EQ(wanted.ratio, 0.5);
  EXPECT_TRUE(wanted.verify);
  EXPECT_EQ(wanted.timeout, 5s);
  EXPECT_EQ(wanted.limit, 8u << 20);
  EXPECT_EQ(wanted.storage, "file");
  EXPECT_EQ(wanted.subject, "");
  EXPECT_TRUE(wanted.names.empty());
  EXPECT_TRUE(wanted.headers.empty());
  EXPECT_EQ(values.place("count"), "");
}

TEST(Fields, AnAliasIsTheSameOption) {
  EXPECT_EQ(checked(R"({"url":"x","topic":"t"})").values.text("subject"), "t");
  EXPECT_EQ(told(checked(R"({"url":"x","topic":"t","subject":"t"})").problems), Told{});
  EXPECT_EQ(problem_of(R"("topic":"t","channel":"c")"),
            "conflict | pipeline p, key channel: \"channel\" says something else than \"topic\" "
            "(pipeline p, key topic); both mean the same | Give one of them.");
}

TEST(Fields, UnknownOptionsNameTheNearestAndAllKnown) {
  EXPECT_EQ(problem_of(R"("timeuot":1)"),
            "unknown_option | pipeline p, key timeuot: there is no option \"timeuot\" | Did you "
            "mean \"timeout\"? Known here: url, subject, count, ratio, verify, timeout, limit, "
            "storage, names, headers, token.");
  EXPECT_EQ(problem_of(R"("zzzzzzzz":1)"),
            "unknown_option | pipeline p, key zzzzzzzz: there is no option \"zzzzzzzz\" | Known "
            "here: url, subject, count, ratio, verify, timeout, limit, storage, names, headers, "
            "token.");
}

TEST(Fields, MissingOptionsAreNamedWithTheirMeaning) {
  const std::string expected =
      "missing_option | pipeline p, sink: \"url\" is missing | Set it: where the server is.";
  EXPECT_EQ(told(checked("{}").problems), Told{expected});
  EXPECT_EQ(told(checked(R"({"url":null})").problems), Told{expected});
  EXPECT_EQ(told(checked(R"({"url":""})").problems),
            Told{"missing_option | pipeline p, key url: \"url\" is missing | Set it: where the "
                 "server is."});
}

TEST(Fields, WrongValuesSayWhatIsAllowed) {
  EXPECT_EQ(problem_of(R"("subject":5)"),
            "wrong_type | pipeline p, key subject: subject is 5; it must be a text | Put it into "
            "quotes.");
  EXPECT_EQ(problem_of(R"("count":"many")"),
            "wrong_type | pipeline p, key count: count is \"many\"; it must be a whole number from "
            "1 to 1000 | ");
  EXPECT_EQ(problem_of(R"("count":"5")"),
            "wrong_type | pipeline p, key count: count is \"5\"; it must be a whole number from 1 "
            "to 1000 | ");
  EXPECT_EQ(problem_of(R"("count":1001)"),
            "out_of_range | pipeline p, key count: count is 1001; it must be a whole number from 1 "
            "to 1000 | ");
  EXPECT_EQ(problem_of(R"("count":1.5)"),
            "wrong_type | pipeline p, key count: count is 1.5; it must be a whole number from 1 to "
            "1000 | ");
  EXPECT_EQ(
      problem_of(R"("ratio":-1)"),
      "out_of_range | pipeline p, key ratio: ratio is -1; it must be a number from 0 to 1 | ");
  EXPECT_EQ(problem_of(R"("verify":"yes")"),
            "wrong_type | pipeline p, key verify: verify is \"yes\"; it must be true or false | ");
  EXPECT_EQ(
      problem_of(R"("timeout":"soon")"),
      "wrong_type | pipeline p, key timeout: timeout is \"soon\"; it must be a duration of at "
      "least 100ms (such as \"500ms\", \"10s\", \"5m\", or a number of seconds) | ");
  EXPECT_EQ(problem_of(R"("limit":"8M")"),
            "wrong_type | pipeline p, key limit: limit is \"8M\"; it must be a size that is not "
            "negative (such as \"256KB\", \"8MiB\", or a number of bytes) | ");
  EXPECT_EQ(problem_of(R"("storage":"flie")"),
            "not_allowed | pipeline p, key storage: storage is \"flie\"; it must be one of memory, "
            "file | Did you mean \"file\"?");
  EXPECT_EQ(problem_of(R"("names":[1])"),
            "wrong_type | pipeline p, key names: names is a list; it must be a list of texts | ");
  EXPECT_EQ(problem_of(R"("headers":{"a":[]})"),
            "wrong_type | pipeline p, key headers: headers is an object; it must be an object of "
            "texts | ");
}

TEST(Fields, AllProblemsAreReportedAtOnceAndTheGoodValuesKept) {
  const Checked result = checked(R"({"count":0,"storage":"tape","nope":1,"ratio":0.75})");
  EXPECT_EQ(result.problems.size(), 4u);
  EXPECT_EQ(filled(result.values).ratio, 0.75);
  EXPECT_FALSE(result.values.has("count"));
}

TEST(Fields, SecretsAreNotInAnyMessage) {
  EXPECT_EQ(problem_of(R"("token":"geheim")"),
            "wrong_type | pipeline p, key token: token is a text; it must be a whole number that "
            "is not negative | ");
  EXPECT_EQ(problem_of(R"("token":-4711)").find("4711"), std::string::npos);
  EXPECT_EQ(problem_of(R"("count":"nats://u:geheim@host")").find("geheim"), std::string::npos);
  setenv("RELAY_TEST_SECRET", "geheim", 1);
  for (const char* name : {"count", "ratio", "verify", "timeout", "limit", "storage", "headers"}) {
    const auto node = parse_json(
        fmt::format(R"({{"url":"x","{}":"${{env:RELAY_TEST_SECRET}}"}})", name), "pipeline p");
    const auto resolved = resolve_references(*node, false);
    ASSERT_TRUE(resolved);
    const auto problems = told(check(*resolved->object(), kTable, "p").problems);
    ASSERT_EQ(problems.size(), 1u) << name;
    EXPECT_EQ(problems[0].find("geheim"), std::string::npos) << problems[0];
  }
}

TEST(Fields, TextFromAReferenceMayStandForAnyType) {
  setenv("RELAY_TEST_COUNT", "12", 1);
  setenv("RELAY_TEST_FALSE", "false", 1);
  const auto node = parse_json(
      R"({"url":"x","count":"${env:RELAY_TEST_COUNT}","verify":"${env:RELAY_TEST_FALSE}",
          "ratio":"0.${env:RELAY_TEST_COUNT}","timeout":"${env:RELAY_TEST_COUNT}"})",
      "p");
  const auto resolved = resolve_references(*node, false);
  ASSERT_TRUE(resolved);
  const Checked result = check(*resolved->object(), kTable, "p");
  EXPECT_EQ(told(result.problems), Told{});
  const Wanted wanted = filled(result.values);
  EXPECT_EQ(wanted.count, 12);
  EXPECT_FALSE(wanted.verify);
  EXPECT_EQ(wanted.ratio, 0.12);
  EXPECT_EQ(wanted.timeout, 12s);
}

TEST(Durations, AreReadInEveryForm) {
  const std::vector<std::pair<const char*, std::chrono::milliseconds>> cases = {
      {"0", 0ms},      {"10", 10s},     {"1.5", 1500ms}, {"500ms", 500ms}, {"10s", 10s},
      {"5m", 5min},    {"1h", 1h},      {"1d", 24h},     {"1h30m", 90min}, {" 2 s ", 2s},
      {"0.1s", 100ms}, {"1m 30s", 90s}, {"100us", 1ms},  {"5M", 5min},     {"0.0001", 1ms}};
  for (const auto& [text, expected] : cases) {
    const auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, expected) << text;
  }
  for (const char* text : {"", " ", "s", "10x", "-1", "-1s", "1e3", "5 m x", "1..2", "1.s", ".5s",
                           "inf", "nan", "10 10", "1h30", "9999999999999999999d", "1,5s", "0x1"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
}

TEST(Durations, OfWholeMillisecondsAreExact) {
  EXPECT_TRUE(rc::check("milliseconds", [] {
    const auto count = *rc::gen::inRange<std::int64_t>(0, 1'000'000'000'000);
    RC_ASSERT(parse_duration(fmt::format("{}ms", count))->count() == count);
    RC_ASSERT(parse_duration(fmt::format("{}.{:03}", count / 1000, count % 1000))->count() ==
              count);
  }));
}

TEST(Sizes, AreReadInEveryForm) {
  const std::vector<std::pair<const char*, std::int64_t>> cases = {
      {"0", 0},
      {"1024", 1024},
      {"256KB", 256000},
      {"8MiB", 8 << 20},
      {"1GiB", 1 << 30},
      {"1.5KiB", 1536},
      {"10 B", 10},
      {"2tb", 2'000'000'000'000},
      {"1TiB", 1LL << 40},
      {"1000000000000001", 1'000'000'000'000'001}};
  for (const auto& [text, expected] : cases) {
    const auto parsed = parse_bytes(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, expected) << text;
  }
  for (const char* text : {"", "MiB", "8M", "8 Mi", "-1", "1KB1KB", "1e9", "10000000TiB"}) {
    EXPECT_FALSE(parse_bytes(text)) << text;
  }
}

TEST(Units, ArbitraryTextNeverCrashesTheReaders) {
  EXPECT_TRUE(rc::check("text", [](const std::string& text) {
    (void)parse_duration(text);
    (void)parse_bytes(text);
  }));
  EXPECT_TRUE(rc::check("almost right", [] {
    const auto text =
        *rc::gen::container<std::string>(rc::gen::elementOf(std::string("0123456789. smhdkKMGiB")));
    if (const auto parsed = parse_duration(text)) RC_ASSERT(parsed->count() >= 0);
    if (const auto parsed = parse_bytes(text)) RC_ASSERT(*parsed >= 0);
  }));
}

}  // namespace
}  // namespace relay::config
