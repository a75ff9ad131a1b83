#include "config/host_access.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace relay::config {
namespace {

namespace fs = std::filesystem;

TEST(Pattern, AStarStopsAtASlashAndTwoDoNot) {
  EXPECT_TRUE(matches_pattern("env:NATS_*", "env:NATS_TOKEN"));
  EXPECT_TRUE(matches_pattern("env:NATS_*", "env:NATS_"));
  EXPECT_TRUE(matches_pattern("env:A?C", "env:ABC"));
  EXPECT_TRUE(matches_pattern("/a/*/c", "/a/b/c"));
  EXPECT_TRUE(matches_pattern("/a/**", "/a/b/c"));
  EXPECT_TRUE(matches_pattern("*.cmd", "sasl.kerberos.kinit.cmd"));
  EXPECT_FALSE(matches_pattern("env:NATS_*", "env:OTHER"));
  EXPECT_FALSE(matches_pattern("env:NATS_*", "xenv:NATS_A"));
  EXPECT_FALSE(matches_pattern("env:NATS", "env:NATS_A"));
  EXPECT_FALSE(matches_pattern("/a/*", "/a/b/c"));
  EXPECT_FALSE(matches_pattern("/a/?", "/a//"));
  EXPECT_FALSE(matches_pattern("", "x"));
  EXPECT_TRUE(matches_pattern("", ""));
}

TEST(Path, IsComparedWithoutDotsAndDoubledSlashes) {
  EXPECT_EQ(normal_path("/a/./b//c/../d"), "/a/b/d");
  EXPECT_EQ(normal_path("//etc/passwd"), "/etc/passwd");
  EXPECT_EQ(normal_path("/../../etc"), "/etc");
  EXPECT_EQ(normal_path("relative"), "");
  EXPECT_EQ(normal_path(std::string_view("/a\0b", 4)), "");
}

TEST(Path, MustFitAsWrittenAndAsLinksLead) {
  const fs::path root = fs::temp_directory_path() / ("host_access_" + std::to_string(::getpid()));
  fs::create_directories(root / "in");
  std::ofstream(root / "in" / "file") << "content\r\n";
  std::ofstream(root / "secret") << "secret";
  fs::create_symlink("../secret", root / "in" / "link");
  fs::create_symlink("in", root / "alias");
  const std::vector<std::string> in{(root / "in/*").native()};
  const auto at = [&](const char* path) { return (root / path).native(); };
  EXPECT_TRUE(allows_path(in, at("in/file")));
  EXPECT_TRUE(allows_path(in, at("in/not-there-yet")));
  EXPECT_TRUE(allows_path({(root / "alias/*").native()}, at("alias/file")));
  EXPECT_FALSE(allows_path(in, at("in/link")));
  EXPECT_FALSE(allows_path(in, at("in/../secret")));
  EXPECT_FALSE(allows_path(in, at("secret")));
  EXPECT_FALSE(allows_path({}, at("in/file")));
  EXPECT_EQ(*read_allowed_file(in, at("in/file")), "content");
  EXPECT_EQ(read_allowed_file(in, at("in/link")).error().code, "not_allowed");
  EXPECT_EQ(read_allowed_file(in, at("in")).error().code, "not_allowed");
  EXPECT_EQ(read_allowed_file(in, at("in/absent")).error().code, "unreadable_file");
  fs::remove_all(root);
}

TEST(Patterns, OfAnUnknownKindAreRefused) {
  EXPECT_TRUE(check_patterns({{"env:A", "file:/a/*"}, {"/b/*"}}));
  EXPECT_FALSE(check_patterns({{"NATS_*"}, {}}));
  EXPECT_FALSE(check_patterns({{"file:relative"}, {}}));
  EXPECT_FALSE(check_patterns({{}, {"relative"}}));
}

}  // namespace
}  // namespace relay::config
