#include "http/crypto.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace relay::http {
namespace {

TEST(Crypto, HashesAsPublished) {
  EXPECT_EQ(hex(bytes_of(sha256("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  // RFC 4231, case 2.
  EXPECT_EQ(hex(bytes_of(hmac_sha256("Jefe", "what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Crypto, Base64IsThatOfRfc4648) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64_decoded("Zm9vYg=="), "foob");
  EXPECT_EQ(base64_decoded("Zm9vYg"), "foob");
  EXPECT_EQ(base64_decoded("Zm9v!"), std::nullopt);
  EXPECT_EQ(base64_decoded("Z"), std::nullopt);
}

TEST(Crypto, Base64GivesBackWhatWentIn) {
  EXPECT_TRUE(rc::check(
      [](const std::string& bytes) { RC_ASSERT(base64_decoded(base64(bytes)) == bytes); }));
}

TEST(Crypto, SecretsAreComparedAsAWhole) {
  EXPECT_TRUE(same_secret("abc", "abc"));
  EXPECT_FALSE(same_secret("abc", "abd"));
  EXPECT_FALSE(same_secret("abc", "abcd"));
}

}  // namespace
}  // namespace relay::http
