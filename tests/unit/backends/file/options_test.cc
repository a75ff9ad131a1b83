#include "backends/file/options.h"

#include <gtest/gtest.h>

#include <string>

#include "config/checked.h"
#include "config/tree.h"

namespace relay::file {
namespace {

Result<Options> parsed(std::string_view json, config::FieldTable table) {
  return parse_options(config::checked(json, table));
}

TEST(FileOptions, HaveTheDocumentedDefaults) {
  const auto options = parsed("{}", stdout_fields());
  ASSERT_TRUE(options);
  EXPECT_EQ(options->format, Format::jsonl);
  EXPECT_TRUE(options->path.empty());
  EXPECT_EQ(options->rotate_bytes, 0);
  EXPECT_EQ(options->rotate_interval.count(), 0);
  EXPECT_FALSE(options->compress_rotated);
  EXPECT_TRUE(options->fsync);
}

TEST(FileOptions, AreAllRead) {
  const auto options = parsed(
      R"({"path": "/p", "format": "csv", "rotate_bytes": "1MiB", "rotate_interval": "1h",
          "compress_rotated": true, "fsync": false})",
      file_fields());
  ASSERT_TRUE(options);
  EXPECT_EQ(options->path, "/p");
  EXPECT_EQ(options->format, Format::csv);
  EXPECT_EQ(options->rotate_bytes, 1 << 20);
  EXPECT_EQ(options->rotate_interval, std::chrono::hours(1));
  EXPECT_TRUE(options->compress_rotated);
  EXPECT_FALSE(options->fsync);
}

TEST(FileOptions, ContradictionsAreConfigurationErrors) {
  for (const char* json :
       {R"({"rotate_bytes": 5})", R"({"compress_rotated": true, "path": "/p"})"}) {
    const auto options = parsed(json, stdout_fields());
    ASSERT_FALSE(options) << json;
    EXPECT_EQ(options.error().error_class, ErrorClass::misconfigured);
  }
}

TEST(FileOptions, AFileNeedsAPath) {
  const auto node = config::parse_json("{}", "test");
  EXPECT_EQ(config::check(*node->object(), file_fields(), "test").problems.size(), 1u);
}

}  // namespace
}  // namespace relay::file
