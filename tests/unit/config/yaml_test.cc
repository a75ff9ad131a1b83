#include <fmt/core.h>
#include <gtest/gtest.h>

#include "config/tree.h"

namespace relay::config {
namespace {

std::string json(std::string_view text) {
  const auto root = parse_yaml(text, "f");
  return root ? root->to_json() : root.error().message;
}

TEST(Yaml, KeepsPlacesKeysAndTheirOrder) {
  const auto root = parse_yaml("b:\n  - x: 1\n  - y\na: {c: d}\n", "f.yaml");
  ASSERT_TRUE(root);
  const Node::Object& object = *root->object();
  EXPECT_EQ(object[0].first, "b");
  EXPECT_EQ(object[1].first, "a");
  EXPECT_EQ(object[0].second.array()->at(0).find("x")->place(), "f.yaml:2:8");
  EXPECT_EQ(object[0].second.array()->at(1).place(), "f.yaml:3:5");
  EXPECT_EQ(object[1].second.find("c")->place(), "f.yaml:4:8");
}

TEST(Yaml, OnlyWhatStandsWithoutQuotesMayBeANumber) {
  const auto root = parse_yaml("plain: 12\nquoted: \"12\"\nsingle: '12'\nblock: |\n  12\n", "f");
  ASSERT_TRUE(root);
  EXPECT_EQ(root->find("plain")->origin(), Node::Origin::outside);
  EXPECT_EQ(root->find("quoted")->origin(), Node::Origin::written);
  EXPECT_EQ(root->find("single")->origin(), Node::Origin::written);
  EXPECT_EQ(root->find("block")->origin(), Node::Origin::written);
  EXPECT_EQ(*root->find("plain")->text(), "12");
}

TEST(Yaml, NothingIsNull) {
  EXPECT_EQ(json(""), "{}");
  EXPECT_EQ(json("# only this\n"), "{}");
  EXPECT_EQ(json("a:\nb: ~\nc: null\nd: ''\n"), R"({"a":null,"b":null,"c":null,"d":""})");
}

TEST(Yaml, AnErrorNamesItsPlace) {
  EXPECT_TRUE(json("a: [1, 2").starts_with("f:1:")) << json("a: [1, 2");
  EXPECT_TRUE(json("a: 1\n b: 2\n").starts_with("f:2:"));
  EXPECT_TRUE(json("- a\n").starts_with("f:1:1: the file must hold keys"));
  EXPECT_EQ(json("a: 1\nb: 2\na: 3\n"), "f:3:1: the key \"a\" stands here twice");
  EXPECT_EQ(json("? [a]\n: 1\n"), "f:1:3: a key must be a text");
  EXPECT_EQ(json("a: 1\n---\nb: 2\n"), "f:2:1: there are several documents in one file");
}

TEST(Yaml, AliasesCannotMakeAHugeTree) {
  std::string text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char name = 'b'; name < 'j'; ++name) {
    text += std::string(1, name) + ": &" + name + " [";
    for (int i = 0; i < 10; ++i) text += std::string(i ? ", *" : "*") + static_cast<char>(name - 1);
    text += "]\n";
  }
  EXPECT_NE(json(text).find("values"), std::string::npos);
}

TEST(Yaml, NestingWithoutEndIsAnError) {
  EXPECT_FALSE(parse_yaml("a: " + std::string(100'000, '['), "f"));
}

TEST(Yaml, ValuesMayStandSixtyFourDeep) {
  const auto nested = [](std::size_t depth) {
    return "a: " + std::string(depth, '[') + std::string(depth, ']') + "\n";
  };
  EXPECT_TRUE(parse_yaml(nested(63), "f"));
  EXPECT_EQ(json(nested(64)), "f:1:67: values stand more than 64 deep in others");
}

TEST(Yaml, AnAliasIsACopyOfWhatItNames) {
  EXPECT_EQ(json("a: &a {x: 1}\nb: *a\nc: [*a, &t y]\n*t : *t\n"),
            R"({"a":{"x":"1"},"b":{"x":"1"},"c":[{"x":"1"},"y"],"y":"y"})");
  EXPECT_EQ(json("a: &a {x: 1}\n*a : 2\n"), "f:2:1: a key must be a text");
  EXPECT_EQ(json("a: &a {x: *a}\n"), "f:1:11: this alias stands in its own value");
  EXPECT_EQ(json("a: &a [1, [*a]]\n"), "f:1:12: this alias stands in its own value");
}

TEST(Yaml, AliasesCannotNestWithoutEnd) {
  std::string text = "a0: &a0 [x]\n";
  for (int i = 1; i < 100; ++i) text += fmt::format("a{0}: &a{0} [*a{1}]\n", i, i - 1);
  EXPECT_EQ(json(text), "f:64:12: values stand more than 64 deep in others");
}

TEST(Yaml, TheParserIsNotAskedForDocumentsWithoutEnd) {
  EXPECT_FALSE(parse_yaml(",stream:\021{\"s\n  id: 11t", "f"));
}

TEST(Yaml, WhatIsNotAReferenceStaysUntyped) {
  const auto root = parse_yaml("a: 12\nb: $${x}\n", "f");
  std::vector<Error> problems;
  const Node resolved = resolve_references(*root, true, problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(resolved.find("a")->origin(), Node::Origin::outside);
  EXPECT_EQ(*resolved.find("b")->text(), "${x}");
}

}  // namespace
}  // namespace relay::config
