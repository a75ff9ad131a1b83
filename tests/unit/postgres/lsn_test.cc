#include "postgres/lsn.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace relay::postgres {
namespace {

TEST(Lsn, IsWrittenAsPostgreSqlWritesIt) {
  EXPECT_EQ(to_string(Lsn{0x16B374D848}), "16/B374D848");
  EXPECT_EQ(to_string(Lsn{0x1500000000}), "15/0");
  EXPECT_EQ(to_string(Lsn{}), "0/0");
}

RC_GTEST_PROP(Lsn, IsReadAsItWasWritten, (std::uint64_t value)) {
  RC_ASSERT(parse_lsn(to_string(Lsn{value})) == Lsn{value});
}

TEST(Lsn, OtherTextsAreNone) {
  for (const char* text : {"", "/", "1/", "/1", "1", "-1/2", "1/-2", "1/2/3", "1/G", " 1/2", "1/2 ",
                           "123456789/1", "0x1/2", "1/+2"}) {
    EXPECT_FALSE(parse_lsn(text)) << text;
  }
}

TEST(Lsn, LowerCaseIsRead) {
  EXPECT_EQ(parse_lsn("a/b0"), Lsn{0xA000000B0});
}

}  // namespace
}  // namespace relay::postgres
