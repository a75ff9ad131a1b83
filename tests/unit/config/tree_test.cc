#include "config/tree.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "problems.h"

namespace relay::config {
namespace {

bool same(const Node& a, const Node& b) {
  return a.to_json() == b.to_json();
}

rc::Gen<Node> any_node(int depth) {
  const auto scalar = rc::gen::oneOf(
      rc::gen::map(rc::gen::arbitrary<bool>(), [](bool value) { return Node(value, ""); }),
      rc::gen::map(rc::gen::arbitrary<std::int64_t>(),
                   [](std::int64_t value) { return Node(value, ""); }),
      rc::gen::map(rc::gen::arbitrary<double>(), [](double value) { return Node(value, ""); }),
      rc::gen::map(rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127)),
                   [](std::string value) { return Node(std::move(value), ""); }),
      rc::gen::just(Node()));
  if (depth == 0) return scalar;
  const auto keys = rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127));
  return rc::gen::oneOf(
      scalar,
      rc::gen::map(
          rc::gen::container<std::vector<Node>>(rc::gen::lazy([=] { return any_node(depth - 1); })),
          [](std::vector<Node> array) { return Node(std::move(array), ""); }),
      rc::gen::map(rc::gen::container<std::map<std::string, Node>>(
                       keys, rc::gen::lazy([=] { return any_node(depth - 1); })),
                   [](const std::map<std::string, Node>& members) {
                     return Node(Node::Object(members.begin(), members.end()), "");
                   }));
}

std::string json_error(std::string_view text) {
  const auto node = parse_json(text, "pipeline p");
  return node ? "no error: " + node->to_json() : node.error().message;
}

TEST(Json, WhatIsWrittenIsRead) {
  EXPECT_TRUE(rc::check("round trip", [] {
    const Node node = *rc::gen::resize(12, any_node(3));
    const auto again = parse_json(node.to_json(), "");
    RC_ASSERT(again.has_value());
    RC_ASSERT(same(*again, node));
  }));
}

TEST(Json, ArbitraryBytesNeverCrashTheReader) {
  EXPECT_TRUE(rc::check("bytes", [](const std::string& text) { (void)parse_json(text, "p"); }));
  EXPECT_TRUE(rc::check("almost JSON", [] {
    std::string text = (*rc::gen::resize(8, any_node(3))).to_json();
    const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
    text[at] = *rc::gen::elementOf(std::string("{}[],:\"\\0e.-x\x01\xff"));
    const auto node = parse_json(text, "p");
    if (node) (void)node->to_json();
  }));
}

TEST(Json, IntegersAreExactAndLargerNumbersBecomeDouble) {
  const auto node =
      parse_json("[9223372036854775807,-9223372036854775808,9223372036854775808,1.0]", "p");
  ASSERT_TRUE(node);
  const Node::Array& array = *node->array();
  EXPECT_EQ(*array[0].integer(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(*array[1].integer(), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(*array[2].number(), 9223372036854775808.0);
  EXPECT_EQ(*array[3].number(), 1.0);
}

TEST(Json, EachNodeKnowsItsPath) {
  const auto node = parse_json(R"({"a":{"b":[1,{"c":true}]}})", "pipeline p");
  ASSERT_TRUE(node);
  EXPECT_EQ(node->place(), "pipeline p");
  const Node& list = *node->find("a")->find("b");
  EXPECT_EQ(list.place(), "pipeline p, key a.b");
  EXPECT_EQ((*list.array())[1].find("c")->place(), "pipeline p, key a.b[1].c");
}

TEST(Json, KeysKeepTheirOrderAndAreComparedWithoutIt) {
  const auto one = parse_json(R"({"b":1,"a":2})", "p");
  const auto other = parse_json(R"({"a":2,"b":1})", "p");
  EXPECT_EQ((*one->object())[0].first, "b");
  EXPECT_TRUE(same(*one, *other));
}

TEST(Json, ErrorsSayWhere) {
  EXPECT_EQ(json_error(R"({"sink":{"url":tru}})"),
            "pipeline p, key sink.url: not valid JSON: The JSON element does not have the "
            "requested type.");
  EXPECT_EQ(json_error(R"({"a":1,"a":2})"), "pipeline p, key a: given twice");
  for (const char* text : {"", "{", "[1,]", "1 2", "{} {}", "{\"a\":01}", "\"\x01\"", "\xff", "nul",
                           "[1e400]", "{\"a\":\"b\"c}"}) {
    EXPECT_EQ(json_error(text).rfind("pipeline p", 0), 0u) << text << ": " << json_error(text);
  }
  EXPECT_EQ(json_error(std::string(100000, '[')).rfind("pipeline p", 0), 0u);
}

TEST(Toml, EachNodeKnowsFileLineAndColumn) {
  const auto node = parse_toml(
      "[global]\npostgres_url = \"x\"\n\n[[pipeline]]\nname = \"a\"\n"
      "sink = { type = \"nats\", url = \"u\" }\n",
      "relay.toml");
  ASSERT_TRUE(node);
  EXPECT_EQ(node->find("global")->find("postgres_url")->place(), "relay.toml:2:16");
  const Node& pipeline = (*node->find("pipeline")->array())[0];
  EXPECT_EQ(pipeline.place(), "relay.toml:4:1");
  EXPECT_EQ(pipeline.find("sink")->find("url")->place(), "relay.toml:6:31");
}

TEST(Toml, KeysKeepTheirOrderAndEveryTypeIsRead) {
  const auto node = parse_toml(
      "z = 1\na = 1.5\nm = true\nlist = [1, \"x\"]\nday = 2026-04-27\n"
      "at = 2026-04-27T10:15:03Z\n[sub]\nx = \"\"\n",
      "f");
  ASSERT_TRUE(node);
  std::string keys;
  for (const auto& member : *node->object()) keys += member.first + " ";
  EXPECT_EQ(keys, "z a m list day at sub ");
  EXPECT_EQ(node->to_json(),
            R"({"a":1.5,"at":"2026-04-27T10:15:03Z","day":"2026-04-27","list":[1,"x"],)"
            R"("m":true,"sub":{"x":""},"z":1})");
}

TEST(Toml, ErrorsSayWhereAndNeverQuoteAValue) {
  for (const char* text :
       {"a = postgres://user:geheim@h/db\n", "a = \"geheim\nb\"", "p = 'geheim\n",
        "a = \"x\\qgeheim\"", "a = geheim", "a = 1 geheim", "a = [1, 2 geheim", "a = \"s\"geheim\n",
        "a = 987654321987654321987654321\n", "geheim", "a = 1\na = \"geheim\""}) {
    const auto node = parse_toml(text, "relay.toml");
    ASSERT_FALSE(node) << text;
    EXPECT_EQ(node.error().message.rfind("relay.toml:", 0), 0u) << node.error().message;
    EXPECT_EQ(node.error().message.find("geheim"), std::string::npos) << node.error().message;
    EXPECT_EQ(node.error().message.find("987654321"), std::string::npos) << node.error().message;
    EXPECT_EQ(node.error().error_class, ErrorClass::misconfigured);
  }
  EXPECT_EQ(parse_toml("a = 1\nb = \n", "f").error().message.rfind("f:2:", 0), 0u);
}

TEST(Toml, ArbitraryBytesNeverCrashTheReader) {
  EXPECT_TRUE(rc::check("bytes", [](const std::string& text) { (void)parse_toml(text, "f"); }));
}

class ReferencesTest : public testing::Test {
 protected:
  void SetUp() override {
    setenv("RELAY_TEST_USER", "alice", 1);
    setenv("RELAY_TEST_EMPTY", "", 1);
    unsetenv("RELAY_TEST_UNSET");
    std::string name = testing::TempDir() + "relay_secret_XXXXXX";
    const int fd = mkstemp(name.data());
    ASSERT_GE(fd, 0);
    close(fd);
    path_ = name;
    std::ofstream(path_) << "geheim\n";
  }
  void TearDown() override { std::filesystem::remove(path_); }

  static std::string resolved(const std::string& text, bool plain_names = true) {
    const auto node = resolve_references(Node(text, "f:1:1"), plain_names);
    if (!node) return "error: " + node.error().message;
    return node->text() ? *node->text() : "not a text";
  }

  std::string path_;
};

TEST_F(ReferencesTest, StandForVariablesAndFilesAnywhereInAValue) {
  EXPECT_EQ(resolved("nats://${env:RELAY_TEST_USER}:${file:" + path_ + "}@host"),
            "nats://alice:geheim@host");
  EXPECT_EQ(resolved("${RELAY_TEST_USER}"), "alice");
  EXPECT_EQ(resolved("${RELAY_TEST_UNSET:-bob}"), "bob");
  EXPECT_EQ(resolved("${RELAY_TEST_EMPTY:-bob}"), "bob");
  EXPECT_EQ(resolved("${RELAY_TEST_UNSET:-}"), "");
  EXPECT_EQ(resolved("${env:RELAY_TEST_EMPTY}"), "");
  EXPECT_EQ(resolved("${RELAY_TEST_USER:-bob}"), "alice");
}

TEST_F(ReferencesTest, LeaveEverythingElseAlone) {
  for (const char* text : {"", "$", "$1", "a{b}", "{{ region }}", "{stream_table}", "50$"}) {
    EXPECT_EQ(resolved(text), text);
  }
  EXPECT_EQ(resolved("$${env:X} and $${Y}"), "${env:X} and ${Y}");
}

TEST_F(ReferencesTest, AreNotSearchedForInWhatTheyStandFor) {
  setenv("RELAY_TEST_NESTED", "${env:RELAY_TEST_USER}", 1);
  EXPECT_EQ(resolved("${env:RELAY_TEST_NESTED}"), "${env:RELAY_TEST_USER}");
}

TEST_F(ReferencesTest, ThatCannotBeResolvedAreNamed) {
  EXPECT_EQ(resolved("x${env:RELAY_TEST_UNSET}"),
            "error: f:1:1: ${env:RELAY_TEST_UNSET}: the environment variable RELAY_TEST_UNSET is "
            "not set");
  EXPECT_EQ(resolved("${file:/no/such/file}"),
            "error: f:1:1: ${file:/no/such/file}: No such file or directory");
  EXPECT_EQ(resolved("${file:secret}"), "error: f:1:1: ${file:secret}: the path must begin with /");
  EXPECT_EQ(resolved("${file:/}"), "error: f:1:1: ${file:/}: Is a directory");
  EXPECT_EQ(resolved("${vault:x}"), "error: f:1:1: ${vault:x} is not a reference");
  EXPECT_EQ(resolved("${"), "error: f:1:1: a reference that begins with ${ has no }");
  EXPECT_EQ(resolved("${}"), "error: f:1:1: ${} is not a reference");
}

TEST_F(ReferencesTest, PlainNamesAreRefusedWhereTheyDoNotWork) {
  EXPECT_EQ(resolved("${RELAY_TEST_USER}", false),
            "error: f:1:1: ${RELAY_TEST_USER} is not a reference here; plain names work in files "
            "only");
  EXPECT_EQ(resolved("${env:RELAY_TEST_USER}", false), "alice");
}

TEST_F(ReferencesTest, EveryProblemIsReportedAndTheValueBecomesNull) {
  const auto tree =
      parse_json(R"({"a":"${env:RELAY_TEST_UNSET}","b":["x","${env:RELAY_TEST_UNSET}"],
                                   "c":"${env:RELAY_TEST_USER}","d":"plain"})",
                 "pipeline p");
  std::vector<Error> problems;
  const Node node = resolve_references(*tree, false, problems);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[1].message.rfind("pipeline p, key b[1]: ", 0), 0u);
  EXPECT_EQ(node.to_json(), R"({"a":null,"b":["x",null],"c":"alice","d":"plain"})");
  EXPECT_EQ(node.find("c")->origin(), Node::Origin::reference);
  EXPECT_EQ(node.find("d")->origin(), Node::Origin::written);
}

}  // namespace
}  // namespace relay::config
