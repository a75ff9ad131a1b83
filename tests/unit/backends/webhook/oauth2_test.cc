#include "backends/webhook/oauth2.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::webhook {
namespace {

using namespace std::chrono_literals;

OAuth2Options options() {
  return {.token_url = "https://id.example/secret-path",
          .client_id = "me",
          .client_secret = "s3cret-word",
          .client_auth = ClientAuth::basic,
          .scope = "a b",
          .audience = "x&y"};
}

Result<GrantedToken> answer(int status, std::string body) {
  http::Response response;
  response.status = status;
  response.body = std::move(body);
  return read_token_answer(response, options());
}

TEST(TokenAnswer, HoldsATokenAndItsLifetime) {
  const auto granted =
      answer(200, R"({"access_token":"abc","token_type":"bearer","expires_in":60})");
  ASSERT_TRUE(granted);
  EXPECT_EQ(granted->text, "abc");
  EXPECT_EQ(granted->lifetime, 60s);
  EXPECT_EQ(answer(201, R"({"access_token":"abc","expires_in":"3600"})")->lifetime, 3600s);
  EXPECT_EQ(answer(200, R"({"access_token":"abc","expires_in":1e300})")->lifetime, 8760h);
  EXPECT_FALSE(answer(200, R"({"access_token":"abc"})")->lifetime);
  EXPECT_FALSE(answer(200, R"({"access_token":"abc","expires_in":null})")->lifetime);
}

TEST(TokenAnswer, ThatIsNoneIsRefusedWithoutShowingIt) {
  for (const char* body :
       {"", "<html>s3cret-token</html>", "[1]", "{", R"({"token":"s3cret-token"})",
        R"({"access_token":""})", R"({"access_token":7})", R"({"access_token":null})",
        R"({"access_token":"s3cret-token\r\nX: y"})", R"({"access_token":"s3cret token"})",
        R"({"access_token":"s3cret-token","token_type":"DPoP"})",
        R"({"access_token":"s3cret-token","expires_in":0})",
        R"({"access_token":"s3cret-token","expires_in":-5})",
        R"({"access_token":"s3cret-token","expires_in":"soon"})",
        R"({"access_token":"s3cret-token","expires_in":[]})"}) {
    const auto granted = answer(200, body);
    ASSERT_FALSE(granted) << body;
    EXPECT_EQ(granted.error().code, "oauth2_answer");
    EXPECT_EQ(granted.error().message.find("s3cret"), std::string::npos);
    EXPECT_EQ(granted.error().message.find("secret-path"), std::string::npos);
  }
}

TEST(TokenAnswer, OfARefusalSaysWhatTheServerSays) {
  const auto refused =
      answer(401, R"({"error":"invalid_client","error_description":"no client with s3cret-word"})");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().error_class, ErrorClass::misconfigured);
  EXPECT_EQ(
      refused.error().message,
      "the token endpoint https://id.example answered 401 invalid_client: no client with ***");
  EXPECT_NE(refused.error().remedy.find("oauth2_client_secret"), std::string::npos);
  EXPECT_EQ(answer(503, "").error().error_class, ErrorClass::transient);
  EXPECT_EQ(answer(429, "{}").error().error_class, ErrorClass::throttled);
  EXPECT_EQ(answer(302, "").error().error_class, ErrorClass::misconfigured);
}

TEST(TokenRequest, EncodesWhatItSends) {
  OAuth2Options with_body = options();
  with_body.client_auth = ClientAuth::body;
  EXPECT_EQ(make_token_request(with_body, 1s).owned_body,
            "grant_type=client_credentials&scope=a%20b&audience=x%26y&client_id=me"
            "&client_secret=s3cret-word");
  EXPECT_EQ(make_token_request(options(), 1s).owned_body.find("s3cret"), std::string::npos);
}

TEST(AccessToken, IsRenewedBeforeItEndsAndUsedMeanwhile) {
  const AccessToken::Time start{1000s};
  AccessToken token;
  EXPECT_TRUE(token.is_due(start));
  token.ask(start);
  EXPECT_FALSE(token.is_due(start));
  token.granted({"first", 100s});
  EXPECT_FALSE(token.is_due(start + 74s));
  EXPECT_TRUE(token.is_due(start + 75s));
  token.ask(start + 75s);
  EXPECT_FALSE(token.is_due(start + 80s));
  token.failed(start + 80s);
  EXPECT_FALSE(token.is_due(start + 84s));
  EXPECT_TRUE(token.is_due(start + 85s));
  ASSERT_TRUE(token.get(start + 94s));
  EXPECT_EQ(*token.get(start + 94s), "first");
  EXPECT_FALSE(token.get(start + 95s));
  EXPECT_TRUE(token.is_due(start + 95s));
  token.ask(start + 95s);
  token.granted({"second", std::nullopt});
  EXPECT_EQ(*token.get(start + 1000h), "second");
  EXPECT_FALSE(token.is_due(start + 1000h));
}

TEST(AccessToken, OfAnEarlierVersionCannotRefuseTheNextOne) {
  const AccessToken::Time start{1000s};
  AccessToken token;
  token.ask(start);
  token.granted({"first", 100s});
  const auto first = token.version();
  token.refused(first);
  EXPECT_FALSE(token.get(start));
  token.ask(start);
  token.granted({"second", 100s});
  token.refused(first);
  EXPECT_EQ(*token.get(start), "second");
}

TEST(AccessToken, IsHiddenInWhatAServerSendsBack) {
  AccessToken token;
  token.ask(AccessToken::Time{1s});
  token.granted({"abcdefghijklmnop", 100s});
  std::string text = "you sent abcdefghijklmnop; it begins with abcdefgh and ends with ijklmnop";
  token.hide_in(text);
  EXPECT_EQ(text, "you sent ****************; it begins with ******** and ends with ********");
}

}  // namespace
}  // namespace relay::webhook
