#include "aws/sigv4.h"

#include <gtest/gtest.h>

namespace relay::aws {
namespace {

// AWS's published test suite for Signature Version 4: these keys, this moment, this scope.
const Credentials kKeys{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
constexpr std::string_view kDate = "20150830T123600Z";

std::string signature_of(const Signable& request) {
  const std::string value = authorization(kKeys, "us-east-1", "service", request, kDate);
  return value.substr(value.rfind('=') + 1);
}

Signable request(std::string method) {
  Signable signable;
  signable.method = std::move(method);
  signable.headers = {{"host", "example.amazonaws.com"}, {"x-amz-date", std::string(kDate)}};
  return signable;
}

TEST(SigV4, GetVanilla) {
  EXPECT_EQ(authorization(kKeys, "us-east-1", "service", request("GET"), kDate),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}

TEST(SigV4, PostVanilla) {
  EXPECT_EQ(signature_of(request("POST")),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}

TEST(SigV4, GetVanillaQueryOrderKeyCase) {
  Signable signable = request("GET");
  signable.query = "Param1=value1&Param2=value2";
  EXPECT_EQ(signature_of(signable),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}

TEST(SigV4, PostHeaderKeySort) {
  Signable signable = request("POST");
  signable.headers.insert(signable.headers.begin(), {"my-header1", "value1"});
  EXPECT_EQ(signature_of(signable),
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c");
}

TEST(SigV4, PostXWwwFormUrlencoded) {
  Signable signable = request("POST");
  signable.headers.insert(signable.headers.begin(),
                          {"content-type", "application/x-www-form-urlencoded"});
  signable.body = "Param1=value1";
  EXPECT_EQ(signature_of(signable),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a");
}

TEST(SigV4, SpacesInValuesAreFolded) {
  Signable signable = request("GET");
  signable.headers.emplace_back("my-header", "  a   b  ");
  EXPECT_NE(canonical_request(signable).find("\nmy-header:a b\n"), std::string::npos);
}

TEST(SigV4, DatesAreInUtc) {
  EXPECT_EQ(amz_date(std::chrono::system_clock::from_time_t(1440938160)), kDate);
}

}  // namespace
}  // namespace relay::aws
