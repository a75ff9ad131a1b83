#include "backends/webhook/receiver_options.h"

#include <gtest/gtest.h>

namespace relay::webhook {
namespace {

constexpr std::int64_t kRecord = 32 << 20;

Result<ReceiverOptions> parse(config::Node::Object object, std::int64_t max_record = kRecord) {
  const auto checked = config::check(object, receiver_fields(), "test");
  EXPECT_TRUE(checked.problems.empty());
  return parse_receiver_options(checked.values, max_record);
}

config::Node text(std::string value) {
  return config::Node(std::move(value), "");
}

TEST(ReceiverOptions, TheDefaultsListenHereOnly) {
  const auto options = parse({});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->host, "127.0.0.1");
  EXPECT_EQ(options->port, 8080);
  EXPECT_EQ(options->path, "/inbox");
  EXPECT_EQ(options->max_body_bytes, 10u << 20);
}

TEST(ReceiverOptions, AddressesOfEitherFamilyAreRead) {
  const auto six = parse({{"listen", text("[::1]:9000")}});
  ASSERT_TRUE(six);
  EXPECT_EQ(six->host, "::1");
  EXPECT_EQ(six->port, 9000);
  EXPECT_EQ(parse({{"listen", text("localhost:1")}})->host, "127.0.0.1");
  EXPECT_EQ(parse({{"listen", text(":1")}})->host, "0.0.0.0");
  for (const char* wrong :
       {"8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "h:70000", "::1:80", "h:8o"}) {
    EXPECT_FALSE(parse({{"listen", text(wrong)}})) << wrong;
  }
}

TEST(ReceiverOptions, APathBeginsWithASlash) {
  EXPECT_EQ(parse({{"path", text("/a/b//")}})->path, "/a/b");
  EXPECT_EQ(parse({{"path", text("/")}})->path, "/");
  for (const char* wrong : {"inbox", "/a?b", "/a b"}) {
    EXPECT_FALSE(parse({{"path", text(wrong)}})) << wrong;
  }
}

TEST(ReceiverOptions, ABodyFitsARecordAndTheRoomForBodies) {
  EXPECT_EQ(parse({}, 1000)->max_body_bytes, 1000u);
  EXPECT_EQ(parse({{"max_waiting_bytes", text("1KiB")}})->max_waiting_bytes,
            (10u << 20) + (16u << 10));
}

TEST(ReceiverOptions, TlsNeedsCertificateAndKey) {
  EXPECT_FALSE(parse({{"tls_cert", text("/c")}}));
  EXPECT_FALSE(parse({{"tls_key", text("/k")}}));
  EXPECT_FALSE(parse({{"tls_ca", text("/a")}}));
  EXPECT_TRUE(parse({{"tls_cert", text("/c")}, {"tls_key", text("/k")}, {"tls_ca", text("/a")}}));
}

}  // namespace
}  // namespace relay::webhook
