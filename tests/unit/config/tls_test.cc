#include "config/tls.h"

#include <gtest/gtest.h>

#include "config/checked.h"

namespace relay::config {
namespace {

constexpr auto kFields = fields_of(kTlsOptions);

Result<TlsOptions> read(std::string_view json) {
  auto options = filled<TlsOptions>(kTlsOptions, checked(json, kFields));
  if (!options) return options;
  if (auto good = check_tls(*options); !good) return fail(good.error());
  return options;
}

TEST(TlsOptions, VerifyUnlessToldOtherwise) {
  const auto options = read("{}");
  ASSERT_TRUE(options);
  EXPECT_TRUE(options->tls_verify);
  EXPECT_TRUE(options->tls_ca.empty() && options->tls_cert.empty() && options->tls_key.empty());
  EXPECT_FALSE(read(R"({"tls_verify": false})")->tls_verify);
}

TEST(TlsOptions, AreAllRead) {
  const auto options = read(R"({"tls_ca": "a", "tls_cert": "c", "tls_key": "k"})");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->tls_ca, "a");
  EXPECT_EQ(options->tls_cert, "c");
  EXPECT_EQ(options->tls_key, "k");
}

TEST(TlsOptions, ACertificateAndItsKeyBelongTogether) {
  EXPECT_EQ(code_of(read(R"({"tls_cert": "c"})")), "half_a_certificate");
  EXPECT_EQ(code_of(read(R"({"tls_key": "k"})")), "half_a_certificate");
}

}  // namespace
}  // namespace relay::config
