#include "core/base64.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace relay {
namespace {

TEST(Base64, IsThatOfRfc4648) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64_decoded("Zm9vYg=="), "foob");
  EXPECT_EQ(base64_decoded("Zm9vYg"), "foob");
  EXPECT_EQ(base64_decoded("Zm9v!"), std::nullopt);
  EXPECT_EQ(base64_decoded("Z"), std::nullopt);
}

TEST(Base64, DecodesWhatItEncoded) {
  EXPECT_TRUE(rc::check(
      [](const std::string& bytes) { RC_ASSERT(base64_decoded(base64(bytes)) == bytes); }));
}

TEST(Base64, EncodesMoreThanOneBlockWithoutPaddingInside) {
  const std::string bytes(10'000, '\xff');
  const std::string text = base64(bytes);
  EXPECT_EQ(text.find('='), text.size() - 2);
  EXPECT_EQ(base64_decoded(text), bytes);
}

}  // namespace
}  // namespace relay
