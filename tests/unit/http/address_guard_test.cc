#include "http/address_guard.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <string>

namespace relay::http {
namespace {

bool is_public(const std::string& text) {
  sockaddr_storage storage{};
  if (text.find(':') == std::string::npos) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    EXPECT_EQ(inet_pton(AF_INET, text.c_str(), &in.sin_addr), 1) << text;
    std::memcpy(&storage, &in, sizeof in);
  } else {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    EXPECT_EQ(inet_pton(AF_INET6, text.c_str(), &in.sin6_addr), 1) << text;
    std::memcpy(&storage, &in, sizeof in);
  }
  return is_public_address(reinterpret_cast<const sockaddr&>(storage));
}

TEST(AddressGuard, LetsPublicAddressesPass) {
  for (const char* text : {"1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.0.1",
                           "100.128.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1",
                           "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"}) {
    EXPECT_TRUE(is_public(text)) << text;
  }
}

TEST(AddressGuard, RefusesWhatIsNotPublic) {
  for (const char* text : {"0.0.0.0",       "10.0.0.1",        "100.64.0.1",
                           "127.0.0.1",     "127.255.255.254", "169.254.169.254",
                           "172.16.0.1",    "172.31.255.255",  "192.0.0.8",
                           "192.0.2.1",     "192.168.1.1",     "198.18.0.1",
                           "198.51.100.1",  "203.0.113.1",     "224.0.0.1",
                           "240.0.0.1",     "255.255.255.255", "::",
                           "::1",           "fe80::1",         "fc00::1",
                           "fd00:ec2::254", "ff02::1",         "2001:db8::1",
                           "2001::1"}) {
    EXPECT_FALSE(is_public(text)) << text;
  }
}

TEST(AddressGuard, LooksIntoAddressesThatWrapOthers) {
  for (const char* text : {"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
                           "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"}) {
    EXPECT_FALSE(is_public(text)) << text;
  }
}

}  // namespace
}  // namespace relay::http
