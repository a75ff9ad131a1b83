#include "core/characters.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

TEST(Characters, TheFirstOnesAreCountedAndNotTheirBytes) {
  EXPECT_EQ(first_characters("", 3), "");
  EXPECT_EQ(first_characters("abc", 0), "");
  EXPECT_EQ(first_characters("abc", 2), "ab");
  EXPECT_EQ(first_characters("abc", 3), "abc");
  EXPECT_EQ(first_characters("abc", 9), "abc");
  EXPECT_EQ(first_characters("\xC3\xA9\xF0\x9F\x98\x80x", 1), "\xC3\xA9");
  EXPECT_EQ(first_characters("\xC3\xA9\xF0\x9F\x98\x80x", 2), "\xC3\xA9\xF0\x9F\x98\x80");
}

TEST(Characters, AStorableTextIsUtf8WithoutNul) {
  EXPECT_EQ(storable_text(""), "");
  EXPECT_EQ(storable_text("a\xC3\xA9"), "a\xC3\xA9");
  EXPECT_EQ(storable_text(std::string("a\0\xC3\xA9", 4)), "a?\xC3\xA9");
  EXPECT_EQ(storable_text("a\xC3(\xFF"), "a?(?");
}

}  // namespace
}  // namespace relay
