#include "cli/text_width.h"

#include <gtest/gtest.h>

#include "cli/progress.h"

namespace relay::cli {
namespace {

TEST(TextWidth, CountsColumnsAndNotBytes) {
  EXPECT_EQ(text_width("abc"), 3u);
  EXPECT_EQ(text_width("größe"), 5u);
  EXPECT_EQ(text_width("名前"), 4u);
  EXPECT_EQ(text_width("e\u0301"), 1u);
  EXPECT_EQ(text_width("🎉"), 2u);
  EXPECT_EQ(text_width("\xff\xfe"), 2u);
  EXPECT_EQ(text_width(""), 0u);
}

TEST(TextWidth, CutsBetweenCharacters) {
  EXPECT_EQ(cut("abcdef", 6, "…"), "abcdef");
  EXPECT_EQ(cut("abcdef", 5, "…"), "abcd…");
  EXPECT_EQ(cut("名前名前", 5, "…"), "名前…");
  EXPECT_EQ(cut("名前名前", 6, "…"), "名前…");
  EXPECT_EQ(cut("abcdef", 1, "..."), "a");
}

TEST(TextWidth, WritesControlCharactersAsEscapes) {
  EXPECT_EQ(printable("a\nb\tc\x1b[0m\x7f"), "a\\nb\\tc\\x1b[0m\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "1m"),
            "\\x9b1m");
  EXPECT_EQ(printable("名"), "名");
}

TEST(TextWidth, WrapsAtBlanksWhereThereAreAny) {
  EXPECT_EQ(wrapped("one two three", 9), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(wrapped("abcdef", 4), (std::vector<std::string>{"abcd", "ef"}));
  EXPECT_EQ(wrapped("名前", 1), (std::vector<std::string>{"名", "前"}));
  EXPECT_EQ(wrapped("", 4), (std::vector<std::string>{""}));
}

TEST(Progress, FitsItsLine) {
  EXPECT_EQ(progress_line("replaying", 5, 10, 80),
            "replaying [###############               ]  50% 5 of 10");
  for (std::size_t columns = 20; columns < 100; ++columns) {
    EXPECT_LT(text_width(progress_line("replaying", 5, 1'000'000'000, columns)), columns);
  }
  EXPECT_NE(progress_line("x", 20, 10, 80).find("100%"), std::string::npos);
  EXPECT_NE(progress_line("x", 0, 0, 80).find("0%"), std::string::npos);
}

}  // namespace
}  // namespace relay::cli
