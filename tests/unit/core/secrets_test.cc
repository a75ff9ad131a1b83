#include "core/secrets.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <string_view>

#include "core/text.h"

namespace relay::secrets {
namespace {

std::string base64(std::string_view text) {
  std::string out((text.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

std::string percent(std::string_view text) {
  std::string out;
  for (const char c : text) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

/// A part of `secret` of eight bytes that `text` holds; empty where it holds none.
std::string part_in(std::string_view text, std::string_view secret) {
  for (std::size_t i = 0; i + kShortest <= secret.size(); ++i) {
    const auto part = secret.substr(i, kShortest);
    if (text.find(part) != std::string_view::npos) return std::string(part);
  }
  return {};
}

rc::Gen<std::string> any_secret() {
  return rc::gen::suchThat(
      rc::gen::container<std::string>(rc::gen::inRange<char>('!', '~')),
      [](const std::string& text) { return text.size() >= kShortest && text.size() < 60; });
}

TEST(Masked, LeavesOrdinaryTextAlone) {
  for (const std::string text :
       {"", "cannot be reached: Connection refused", "127.0.0.1:4222 did not answer",
        "https://hooks.example.com/orders/new?dry=1 answered 422", "postgres://host:5432/db",
        "password: authentication failed for user \"relay\"", "look at bearer_token, user",
        "start the relay with --allow-secret 'env:A', or allow_secret = [\"env:A\"]",
        "nats://${env:NATS_TOKEN}@host", "a@b and c://", "10:15:03 key=42 a=b"}) {
    EXPECT_EQ(masked(text), text);
  }
}

TEST(Masked, ShowsTheNameOfARememberedSecretInItsPlace) {
  remember("hunter2-hunter2", "${env:HUNTER}");
  EXPECT_EQ(masked("refused: hunter2-hunter2!"), "refused: ${env:HUNTER}!");
  EXPECT_EQ(masked("cut: hunter2-hun"), "cut: ${env:HUNTER}");
}

TEST(Masked, DoesNotRememberWhatIsShorterThanEightBytes) {
  remember("4222", "${env:PORT}");
  remember("", "${env:EMPTY}");
  EXPECT_EQ(masked("127.0.0.1:4222"), "127.0.0.1:4222");
}

TEST(Masked, OfAUrlBehindAReferenceHidesCredentialsAndPathAndShowsTheHost) {
  remember("https://me:pass-in-url@hooks.example.org/services/T01/B02?x={op}", "${env:HOOK}");
  EXPECT_EQ(masked("POST hooks.example.org/services/T01/B02 as pass-in-url"),
            "POST hooks.example.org${env:HOOK} as ${env:HOOK}");
}

TEST(Masked, HidesTheCredentialsOfUrlsUpToTheLastAt) {
  EXPECT_EQ(masked("postgres://u:p@ss@host/db"), "postgres://***@host/db");
  EXPECT_EQ(masked("at nats://u:p@h1,nats://u:q/r@h2."), "at nats://***@h1,nats://***@h2.");
  EXPECT_EQ(masked("amqp://u:p?a#b/c@host/v"), "amqp://***@host/v");
  EXPECT_EQ(masked("redis://u:123/4@host"), "redis://***@host");
  EXPECT_EQ(masked("postgres://u:p@h1,v:q@h2/db"), "postgres://***@h2/db");
  EXPECT_EQ(masked("postgres://u:xyz@,-:///zyx@h/db"), "postgres://***@h/db");
  EXPECT_EQ(masked("nats://u:p@h1,TLS://q@h2,wss://h3"), "nats://***@h1,TLS://***@h2,wss://h3");
  EXPECT_EQ(masked("'tls://token@host'"), "'tls://***@host'");
  EXPECT_EQ(masked("redis://u:1?2@host"), "redis://***@host");
  EXPECT_EQ(masked("http://[::1]:80/@user"), "http://[::1]:80/@user");
  EXPECT_EQ(masked("https://host/@user?mail=a@b"), "https://host/@user?mail=a@b");
}

TEST(Masked, HidesTokensInUrls) {
  EXPECT_EQ(masked("https://h/a?token=x&b=c"), "https://h/a?token=***&b=c");
  EXPECT_EQ(masked("https://h/a?sv=1&sig=ab%2F=&x=1"), "https://h/a?sv=1&sig=***&x=1");
  EXPECT_EQ(masked("https://h/a?t=AbCdEf0123456789"), "https://h/a?t=***");
  EXPECT_EQ(masked("https://h/hooks/B01/AbCdEfGhIj0123456789xyz/y"), "https://h/hooks/B01/***/y");
}

TEST(Masked, HidesWhatFollowsTheNameOfASecret) {
  EXPECT_EQ(masked("host=h password=abc user=u"), "host=h password=*** user=u");
  EXPECT_EQ(masked("host=h password = 'a \\' b' user=u"), "host=h password = '***' user=u");
  EXPECT_EQ(masked(R"({"nats_token":"a\"b","x":1})"), R"({"nats_token":"***","x":1})");
  EXPECT_EQ(masked("Authorization: Bearer abc def\nx: y"), "Authorization: ***\nx: y");
  EXPECT_EQ(masked(R"({"Cookie": "a=b; c=d", "b": "c"})"), R"({"Cookie": "***", "b": "c"})");
  EXPECT_EQ(masked("X-Api-Key: abc"), "X-Api-Key: ***");
}

TEST(SecretNames, AreThoseOfValuesAndNotOfFiles) {
  for (const auto* name : {"password", "nats_token", "sasl.password", "apiKey", "ssl.key.password",
                           "secret_access_key", "sig", "session_token"}) {
    EXPECT_TRUE(is_secret_name(name)) << name;
  }
  for (const auto* name : {"user", "credentials_file", "tls_key", "signature_header", "key",
                           "signal", "password_file", "design"}) {
    EXPECT_FALSE(is_secret_name(name)) << name;
  }
  for (const auto* name : {"authorization", "Proxy-Authorization", "COOKIE", "X-Api-Key", "X-Token",
                           "webhook-signature"}) {
    EXPECT_TRUE(is_secret_header(name)) << name;
  }
  for (const auto* name : {"content-type", "x-request-id", "traceparent"}) {
    EXPECT_FALSE(is_secret_header(name)) << name;
  }
}

TEST(SecretsInUrl, AreThePartsThatAreSecret) {
  using Parts = std::vector<std::string>;
  EXPECT_EQ(secrets_in_url("nats://u:p%40ss@h"), (Parts{"p%40ss", "p@ss"}));
  EXPECT_EQ(secrets_in_url("nats://tok@h,nats://u:pw@i"), (Parts{"tok", "pw"}));
  EXPECT_EQ(secrets_in_url("u:p@ss@h:4222"), (Parts{"p@ss"}));
  EXPECT_EQ(secrets_in_url("postgres://user@h/db"), Parts{});
  EXPECT_EQ(secrets_in_url("host=h password='a b' user=u"), (Parts{"a b"}));
  EXPECT_EQ(secrets_in_url("https://h/hook"), Parts{});
  EXPECT_EQ(secrets_in_url("plain"), Parts{});
}

RC_GTEST_PROP(Masked, NoPartOfASecretSurvivesWhateverSurroundsIt, ()) {
  const std::string secret = *any_secret();
  const std::string other = *any_secret();
  // One that reads as the beginning of a URL, next to another secret, is taken for one.
  RC_PRE(secret.find("://") == std::string::npos && other.find("://") == std::string::npos);
  remember(secret);
  remember(other, "${env:OTHER}");
  const auto around = *rc::gen::arbitrary<std::string>();
  const auto cut = *rc::gen::inRange<std::size_t>(0, secret.size());
  const std::string text = around + secret + other + secret.substr(0, cut) + around +
                           secret.substr(cut) + json_string(secret) + percent(other);
  RC_ASSERT(part_in(masked(text), secret) == "");
  RC_ASSERT(part_in(masked(text), other) == "");
}

RC_GTEST_PROP(Masked, NoPartSurvivesInAnotherNotation, ()) {
  const std::string secret = *any_secret();
  remember(secret);
  const auto user = *rc::gen::container<std::string>(rc::gen::inRange<char>('a', 'z'));
  const std::string basic = masked("<" + base64(user + ":" + secret) + ">");
  // Of a group of three bytes at either end, one or two belong to something else.
  std::string whole = base64(user + ":" + secret);
  const std::size_t begin = (user.size() + 1 + 2) / 3 * 4;
  const std::size_t end = (user.size() + 1 + secret.size()) / 3 * 4;
  if (end >= begin + kShortest) {
    RC_LOG() << basic << " of " << whole;
    RC_ASSERT(part_in(basic, whole.substr(begin, end - begin)) == "");
  }
  RC_ASSERT(part_in(masked(percent(secret)), percent(secret)) == "");
}

RC_GTEST_PROP(Masked, PasswordsInUrlsNeverShow, ()) {
  // Whatever a user writes between the scheme and the last @.
  const auto password = *rc::gen::suchThat(
      rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab1@:/?#&=%,.-"))),
      [](const std::string& text) { return text.size() >= 3; });
  const std::string text = masked("postgres://user:xyz" + password + "zyx@host/db");
  RC_ASSERT(text.find("xyz") == std::string::npos);
  RC_ASSERT(text.find("zyx") == std::string::npos);
}

RC_GTEST_PROP(Masked, AnyTextIsTaken, (const std::string& text)) {
  (void)masked(text);
  (void)secrets_in_url(text);
  remember(text);
}

}  // namespace
}  // namespace relay::secrets
