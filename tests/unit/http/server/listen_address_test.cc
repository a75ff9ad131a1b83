#include "http/server/listen_address.h"

#include <gtest/gtest.h>

namespace relay::http {
namespace {

TEST(ListenAddress, IsSplitAtItsLastColon) {
  const auto four = split_listen_address("10.0.0.1:9090");
  ASSERT_TRUE(four);
  EXPECT_EQ(four->host, "10.0.0.1");
  EXPECT_EQ(four->port_number(), 9090);
  const auto six = split_listen_address("[::1]:0");
  ASSERT_TRUE(six);
  EXPECT_EQ(six->host, "::1");
  EXPECT_TRUE(six->bracketed);
  EXPECT_EQ(six->port_number(), 0);
  EXPECT_FALSE(split_listen_address("9090"));
}

TEST(ListenAddress, NamesOfWholeMachinesAreAddresses) {
  EXPECT_EQ(split_listen_address("localhost:1")->host, "127.0.0.1");
  EXPECT_EQ(split_listen_address(":1")->host, "0.0.0.0");
  EXPECT_FALSE(split_listen_address("host:1")->is_ip());
}

TEST(ListenAddress, APortIsANumberOfSixteenBits) {
  for (const char* text : {"h:", "h:65536", "h:-1", "h:8o", "h: 1"}) {
    EXPECT_FALSE(split_listen_address(text)->port_number()) << text;
  }
}

}  // namespace
}  // namespace relay::http
