#include "http/url.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::http {
namespace {

TEST(Url, IsTakenApart) {
  const auto url = parse_url("HTTPS://us%40er:p%3Aw@host.example:8443/a/{op}?b=c#d");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->user, "us@er");
  EXPECT_EQ(url->password, "p:w");
  EXPECT_EQ(url->host, "host.example");
  EXPECT_EQ(url->origin(), "https://host.example:8443");
  EXPECT_EQ(url->without_credentials(), "https://host.example:8443/a/{op}?b=c");
}

TEST(Url, KnowsHostsOfEveryForm) {
  EXPECT_EQ(parse_url("http://[::1]:80/")->host, "::1");
  EXPECT_EQ(parse_url("http://[::1]")->host, "::1");
  EXPECT_EQ(parse_url("http://host")->host, "host");
  EXPECT_EQ(parse_url("http://host?q")->rest, "?q");
}

TEST(Url, IsRefusedWithoutShowingWhatItHolds) {
  for (const char* text : {"", "host", "ftp://host/", "http://", "http:///path", "http://h:0/",
                           "http://u:12/secret@h/", "http://u:secret/x@h/", "http://h:99999/",
                           "http://h:x/", "http://%zzsecret@h/"}) {
    const auto url = parse_url(text);
    ASSERT_FALSE(url) << text;
    EXPECT_EQ(url.error().error_class, ErrorClass::misconfigured);
    EXPECT_EQ(url.error().message.find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace relay::http
