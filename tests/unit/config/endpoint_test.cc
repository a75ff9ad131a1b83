#include "config/endpoint.h"

#include <gtest/gtest.h>

#include <array>

namespace relay::config {
namespace {

constexpr std::array kSchemes = {UrlForm::Scheme{"redis", 6379},
                                 UrlForm::Scheme{"rediss", 6380, true}};
const UrlForm kForm{kSchemes, "write it as redis://host"};

TEST(Endpoint, TakesEachPartOfAUrl) {
  const auto found = parse_endpoints("rediss://me:p%40ss%3A@db.example:7000/3", kForm);
  ASSERT_TRUE(found);
  const Endpoint& endpoint = found->front();
  EXPECT_EQ(endpoint.host, "db.example");
  EXPECT_EQ(endpoint.port, 7000);
  EXPECT_EQ(endpoint.address, "db.example:7000");
  EXPECT_TRUE(endpoint.tls);
  EXPECT_EQ(endpoint.user, "me");
  EXPECT_EQ(endpoint.password, "p@ss:");
  EXPECT_EQ(endpoint.path, "3");
}

TEST(Endpoint, FillsInWhatIsLeftOut) {
  const auto found = parse_endpoints("one, rediss://two ,token@three:1", kForm);
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 3U);
  EXPECT_EQ((*found)[0].address, "one:6379");
  EXPECT_FALSE((*found)[0].tls);
  EXPECT_FALSE((*found)[0].password);
  EXPECT_EQ((*found)[1].address, "two:6380");
  EXPECT_EQ((*found)[2].user, "token");
  EXPECT_FALSE((*found)[2].password);
}

TEST(Endpoint, KnowsAddressesOfVersionSix) {
  const auto found = parse_endpoints("redis://[::1]:7000,redis://[fe80::2]", kForm);
  ASSERT_TRUE(found);
  EXPECT_EQ((*found)[0].host, "::1");
  EXPECT_EQ((*found)[0].address, "[::1]:7000");
  EXPECT_EQ((*found)[1].host, "fe80::2");
  EXPECT_EQ((*found)[1].port, 6379);
}

TEST(Endpoint, RefusesWhatItCannotRead) {
  for (const char* url : {"", "http://host", "redis://", "redis://host:0", "redis://host:70000",
                          "redis://host:x", "redis://u:%4@host", "one,,two"}) {
    const auto found = parse_endpoints(url, kForm);
    ASSERT_FALSE(found) << url;
    EXPECT_EQ(found.error().error_class, ErrorClass::misconfigured);
    EXPECT_EQ(found.error().remedy, "write it as redis://host");
  }
}

TEST(Endpoint, RefusesWhatCanBeReadInTwoWays) {
  for (const char* url :
       {"redis://u:pass/word@host", "redis://host/pass@word", "redis://u:pass,word@host"}) {
    const auto found = parse_endpoints(url, kForm);
    ASSERT_FALSE(found) << url;
    EXPECT_EQ(found.error().message.find("pass"), std::string::npos) << found.error().message;
    EXPECT_EQ(found.error().message.find("word"), std::string::npos) << found.error().message;
  }
  const auto found = parse_endpoints("redis://u:p@ss@host", kForm);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->front().password, "p@ss");
  EXPECT_EQ(found->front().address, "host:6379");
}

TEST(Endpoint, NeverShowsCredentials) {
  const auto found = parse_endpoints("redis://me:secret@host:port", kForm);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().message.find("secret"), std::string::npos);
}

}  // namespace
}  // namespace relay::config
