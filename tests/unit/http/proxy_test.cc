#include "http/proxy.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace relay::http {
namespace {

/// The origin of the proxy for a URL; "" where there is none, "error" where it cannot be used.
std::string proxy_of(const char* url, std::string_view option,
                     const std::map<std::string, std::string>& environment) {
  const auto found = find_proxy(*parse_url(url), option, [&](const char* name) {
    const auto variable = environment.find(name);
    return variable == environment.end() ? std::string() : variable->second;
  });
  if (!found) return "error";
  return *found ? (*found)->origin : "";
}

TEST(Proxy, IsTakenApart) {
  const auto proxy = parse_proxy("http://us%40er:p%3Aw@proxy.example:3128/", "proxy");
  ASSERT_TRUE(proxy);
  EXPECT_EQ(proxy->origin, "http://proxy.example:3128");
  EXPECT_EQ(proxy->user, "us@er");
  EXPECT_EQ(proxy->password, "p:w");
  EXPECT_EQ(parse_proxy("proxy.example:3128", "proxy")->origin, "http://proxy.example:3128");
  EXPECT_EQ(parse_proxy("user:pass@h:3128", "proxy")->password, "pass");
  EXPECT_EQ(parse_proxy("https://[::1]:3128", "proxy")->origin, "https://[::1]:3128");
}

TEST(Proxy, IsRefusedWithoutShowingWhatItHolds) {
  for (const char* text : {"", "socks5://u:secret@h:1080", "http://u:secret@h", "http://[::1]",
                           "http://u:secret@h:0", "http://u:secret@h:1/path", "http://h:1?secret",
                           "http://{host}:3128", "http://%zzsecret@h:1"}) {
    const auto proxy = parse_proxy(text, "HTTPS_PROXY");
    ASSERT_FALSE(proxy) << text;
    EXPECT_EQ(proxy.error().error_class, ErrorClass::misconfigured);
    EXPECT_EQ(proxy.error().message.find("secret"), std::string::npos);
    EXPECT_TRUE(proxy.error().message.starts_with("HTTPS_PROXY: "));
  }
}

TEST(Proxy, OfTheOptionGoesBeforeThatOfTheEnvironment) {
  const std::map<std::string, std::string> both{{"HTTPS_PROXY", "http://upper:1"},
                                                {"https_proxy", "http://lower:1"},
                                                {"HTTP_PROXY", "http://cgi:1"}};
  EXPECT_EQ(proxy_of("https://h/", "http://own:1", both), "http://own:1");
  EXPECT_EQ(proxy_of("https://h/", "none", both), "");
  EXPECT_EQ(proxy_of("https://h/", "", both), "http://lower:1");
  EXPECT_EQ(proxy_of("https://h/", "", {{"HTTPS_PROXY", "http://upper:1"}}), "http://upper:1");
  EXPECT_EQ(proxy_of("http://h/", "", both), "");  // HTTP_PROXY may come from a client's header
  EXPECT_EQ(proxy_of("http://h/", "", {{"http_proxy", "http://plain:1"}}), "http://plain:1");
  EXPECT_EQ(proxy_of("https://h/", "", {{"http_proxy", "http://plain:1"}}), "");
  EXPECT_EQ(proxy_of("https://h/", "", {{"HTTPS_PROXY", "socks5://h:1"}}), "error");
  EXPECT_EQ(proxy_of("https://h/", "", {{"HTTPS_PROXY", "socks5://h:1"}, {"NO_PROXY", "h"}}), "");
  EXPECT_EQ(proxy_of("https://h/", "http://own:1", {{"NO_PROXY", "h"}}), "");
}

TEST(NoProxy, HoldsNamesAddressesAndBlocks) {
  EXPECT_TRUE(is_in_no_proxy("a.example", "*"));
  EXPECT_TRUE(is_in_no_proxy("example.com", "other, Example.COM"));
  EXPECT_TRUE(is_in_no_proxy("a.b.example.com", ".example.com"));
  EXPECT_TRUE(is_in_no_proxy("example.com.", "example.com"));
  EXPECT_TRUE(is_in_no_proxy("10.1.2.3", "10.0.0.0/8"));
  EXPECT_TRUE(is_in_no_proxy("10.1.2.3", "1.1.1.1 10.1.2.3"));
  EXPECT_TRUE(is_in_no_proxy("::1", "[::1]"));
  EXPECT_TRUE(is_in_no_proxy("fd00::5", "fd00::/8"));
  EXPECT_FALSE(is_in_no_proxy("notexample.com", "example.com"));
  EXPECT_FALSE(is_in_no_proxy("example.com", "a.example.com"));
  EXPECT_FALSE(is_in_no_proxy("example.com", ""));
  EXPECT_FALSE(is_in_no_proxy("example.com", ",., ,"));
  EXPECT_FALSE(is_in_no_proxy("11.1.2.3", "10.0.0.0/8"));
  EXPECT_FALSE(is_in_no_proxy("10.1.2.3", "10.0.0.0/99,10.0.0.0/x,10.0.0.0/"));
  EXPECT_FALSE(is_in_no_proxy("110.1.2.3", "10.1.2.3"));
  EXPECT_FALSE(is_in_no_proxy("10.1.2.3", "2.3"));
}

}  // namespace
}  // namespace relay::http
