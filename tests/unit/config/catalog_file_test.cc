#include "config/catalog_file.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "problems.h"
#include "test_catalogue.h"

namespace relay::config {
namespace {

CatalogFile parsed(std::string_view text) {
  auto file = parse_catalog_file(test_catalogue(), text, "f.toml");
  EXPECT_TRUE(file) << file.error().message;
  return file ? std::move(*file) : CatalogFile{};
}

/// The configuration after a round trip.
std::string back(std::string_view json) {
  const CatalogFile file = parsed(catalog_entry("a", "", true, json));
  EXPECT_TRUE(file.problems.empty()) << file.problems.front().message;
  return file.entries.at(0).json;
}

constexpr std::string_view kEntry = "[[pipeline]]\nname = 'a'\nstream_table = 't'\n";

TEST(CatalogFile, KeepsReferencesAsTheyAre) {
  const CatalogFile file = parsed(std::string(kEntry) +
                                  "enabled = false\nbatch_size = '${env:SIZE}'\n"
                                  "sink = {type = 'nats', url = '${env:U}:$${x}'}\n");
  EXPECT_TRUE(file.problems.empty());
  ASSERT_EQ(file.entries.size(), 1u);
  EXPECT_FALSE(file.entries[0].enabled);
  EXPECT_EQ(file.entries[0].implied_direction, "forward");
  EXPECT_EQ(file.entries[0].json,
            R"({"batch_size":"${env:SIZE}","sink":{"type":"nats","url":"${env:U}:$${x}"},)"
            R"("stream_table":"t"})");
}

TEST(CatalogFile, ImpliesTheDirectionByTheEnds) {
  const auto direction = [](std::string_view ends) {
    return parsed("[[pipeline]]\nname = 'a'\n" + std::string(ends)).entries.at(0).implied_direction;
  };
  EXPECT_EQ(direction("source = {type = 'nats'}\ninbox_table = 'i'"), "reverse");
  EXPECT_EQ(direction("source = {type = 'nats'}\nsink = {type = 'stdout'}"), "bridge");
  EXPECT_EQ(direction("direction = 'bridge'\noutbox = 'o'\nsink = {type = 'stdout'}"), "bridge");
}

TEST(CatalogFile, ASimpleEntryIsWrittenAsTables) {
  EXPECT_EQ(
      catalog_entry(
          "a\"b", "bridge", false,
          R"({"n": 1.50, "x": 1, "list": ["a", {"b": true}], "sink": {"type": "t\n", "a b": {}}})"),
      "[[pipeline]]\nname = \"a\\\"b\"\nenabled = false\ndirection = \"bridge\"\n"
      "# TOML has no such value:\nconfig = '''\n"
      R"({"n": 1.50, "x": 1, "list": ["a", {"b": true}], "sink": {"type": "t\n", "a b": {}}})"
      "'''\n");
  EXPECT_EQ(catalog_entry(
                "a", "", true,
                R"({"n": 1.5, "list": ["a", {"b": true}], "sink": {"type": "t\n", "a b": {}}})"),
            "[[pipeline]]\nname = \"a\"\nenabled = true\nn = 1.5\nlist = [\"a\", { b = true }]\n"
            "[pipeline.sink]\ntype = \"t\\n\"\n\"a b\" = {}\n");
}

TEST(CatalogFile, NumbersKeepTheirDigits) {
  for (const std::string_view number :
       {"1", "-1", "9223372036854775807", "9223372036854775808", "1.0", "1.10", "0.1",
        "123456789012345678901234567890.123456789012345678901234567890", "0.30000000000000004",
        "100000000000000000000.0", "-0.5"}) {
    const std::string json =
        R"({"sink": {"type": "nats"}, "stream_table": "t", "headers": {"x": )" +
        std::string(number) + "}}";
    // Written by this program without a blank, or kept as it was.
    const std::string found = back(json);
    EXPECT_TRUE(found.find(fmt::format("\"x\":{}}}", number)) != found.npos ||
                found.find(fmt::format("\"x\": {}}}", number)) != found.npos)
        << found;
  }
}

TEST(CatalogFile, NamesThePlaceOfAMistake) {
  const auto wrong = [](std::string_view more) {
    return told(parsed(std::string(kEntry) + std::string(more)).problems);
  };
  const std::string sink = "sink = {type = 'nats'}\n";
  EXPECT_NE(wrong(sink + "enbled = true")[0].find("f.toml:5:1"), std::string::npos);
  EXPECT_NE(wrong(sink + "enbled = true")[0].find("enabled"), std::string::npos);
  EXPECT_NE(wrong("sink = {type = 'nats', ulr = 'x'}")[0].find("f.toml:4:"), std::string::npos);
  EXPECT_NE(wrong(sink + "batch_size = -1")[0].find("f.toml:5:"), std::string::npos);
  EXPECT_NE(wrong(sink + "[global]")[0].find("f.toml:5:"), std::string::npos);
  EXPECT_NE(wrong(sink + "filter = \"a\\u0000\"")[0].find("U+0000"), std::string::npos);
  EXPECT_NE(wrong("sink = {type = 'nats', url = 'nats://***@h'}")[0].find("masked"),
            std::string::npos);
  EXPECT_NE(
      told(parsed("[[pipeline]]\nname = 'a'\nconfig = '{\"a\": '").problems)[0].find("f.toml:3:"),
      std::string::npos);
}

TEST(CatalogFile, KnowsTheOptionsForRetention) {
  EXPECT_TRUE(
      parsed(std::string(kEntry) + "sink = {type = 'nats'}\nretention_hours = 5").problems.empty());
}

}  // namespace
}  // namespace relay::config
