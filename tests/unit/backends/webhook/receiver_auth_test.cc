#include "backends/webhook/receiver_auth.h"

#include <gtest/gtest.h>

#include "backends/webhook/receiver_options.h"
#include "core/base64.h"
#include "core/digest.h"

namespace relay::webhook {
namespace {

using std::chrono::seconds;
using std::chrono::system_clock;

const system_clock::time_point kNow{seconds(1'700'000'000)};

Result<ReceiverAuth> make(config::Node::Object object) {
  const auto checked = config::check(object, receiver_fields(), "test");
  EXPECT_TRUE(checked.problems.empty());
  auto options = parse_receiver_options(checked.values, 1 << 20);
  if (!options) return fail(options.error());
  return std::move(options->auth);
}

config::Node text(std::string value) {
  return config::Node(std::move(value), "");
}

ReceivedRequest with(std::vector<std::pair<std::string, std::string>> headers,
                     std::string body = {}) {
  ReceivedRequest request;
  request.headers = std::move(headers);
  request.body = std::move(body);
  return request;
}

ReceivedRequest signed_request(std::string_view key, std::int64_t at, std::string body) {
  const std::string time = std::to_string(at);
  const auto digest = hmac_sha256(key, "m1." + time + "." + body);
  return with({{"webhook-id", "m1"},
               {"webhook-timestamp", time},
               {"webhook-signature", "v1,bm9uZQ== v1," + base64(bytes_of(digest))}},
              std::move(body));
}

TEST(ReceiverAuth, EveryClientMayWhereNothingIsAsked) {
  const auto auth = make({});
  ASSERT_TRUE(auth);
  EXPECT_TRUE(auth->head_allowed(with({})));
  EXPECT_TRUE(auth->body_allowed(with({}), kNow));
}

TEST(ReceiverAuth, ABearerTokenIsComparedWhole) {
  const auto auth = make({{"auth", text("bearer")}, {"bearer_token", text("old new")}});
  ASSERT_TRUE(auth);
  for (const char* right : {"Bearer old", "bearer new", "BEARER  new"}) {
    EXPECT_TRUE(auth->head_allowed(with({{"authorization", right}}))) << right;
  }
  for (const char* wrong : {"Bearer", "Bearer ", "Bearer ne", "Bearer newer", "Bearer old new",
                            "Basic new", "new", "Bearernew", ""}) {
    EXPECT_FALSE(auth->head_allowed(with({{"authorization", wrong}}))) << wrong;
  }
  EXPECT_FALSE(auth->head_allowed(with({})));
  EXPECT_FALSE(
      auth->head_allowed(with({{"authorization", "Bearer new"}, {"authorization", "Bearer new"}})));
}

TEST(ReceiverAuth, BasicIsUserAndPassword) {
  const auto auth =
      make({{"auth", text("basic")}, {"user", text("ann")}, {"password", text("a:b")}});
  ASSERT_TRUE(auth);
  const auto header = [](std::string_view pair) {
    return with({{"authorization", "Basic " + base64(pair)}});
  };
  EXPECT_TRUE(auth->head_allowed(header("ann:a:b")));
  EXPECT_FALSE(auth->head_allowed(header("ann:a")));
  EXPECT_FALSE(auth->head_allowed(header("bob:a:b")));
  EXPECT_FALSE(auth->head_allowed(with({{"authorization", "Basic !!!"}})));
}

TEST(ReceiverAuth, AHeaderOfAnyNameIsFoundInAnyCase) {
  const auto auth =
      make({{"auth", text("header")}, {"auth_header", text("X-Key")}, {"auth_value", text("v")}});
  ASSERT_TRUE(auth);
  EXPECT_EQ(auth->secret_header(), "x-key");
  EXPECT_TRUE(auth->head_allowed(with({{"x-key", "v"}})));
  EXPECT_FALSE(auth->head_allowed(with({{"x-key", "V"}})));
  EXPECT_FALSE(auth->head_allowed(with({})));
}

TEST(ReceiverAuth, ASignatureCoversIdTimeAndBody) {
  const auto auth = make({{"auth", text("hmac")}, {"signature_secret", text("other whsec_a2V5")}});
  ASSERT_TRUE(auth);
  auto request = signed_request("key", 1'700'000'000, "{}");
  EXPECT_TRUE(auth->head_allowed(request));
  EXPECT_TRUE(auth->body_allowed(request, kNow));
  request.body = "{ }";
  EXPECT_FALSE(auth->body_allowed(request, kNow));
  EXPECT_FALSE(auth->body_allowed(signed_request("kex", 1'700'000'000, "{}"), kNow));
  EXPECT_FALSE(auth->head_allowed(with({{"webhook-id", "m1"}})));
  EXPECT_FALSE(auth->body_allowed(with({{"webhook-signature", "v1,"}}), kNow));
}

TEST(ReceiverAuth, TheWorkedExampleOfStandardWebhooksIsRight) {
  const auto auth = make({{"auth", text("hmac")},
                          {"signature_secret", text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}});
  ASSERT_TRUE(auth);
  const auto request =
      with({{"webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"},
            {"webhook-timestamp", "1614265330"},
            {"webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}},
           R"({"test": 2432232314})");
  EXPECT_TRUE(auth->body_allowed(request, system_clock::time_point(seconds(1'614'265'330))));
}

TEST(ReceiverAuth, ASignatureThatIsOldOrFromTheFutureIsRefused) {
  const auto auth = make({{"auth", text("hmac")}, {"signature_secret", text("key")}});
  ASSERT_TRUE(auth);
  for (const int off : {-300, 300}) {
    EXPECT_TRUE(auth->body_allowed(signed_request("key", 1'700'000'000 + off, ""), kNow));
  }
  for (const int off : {-301, 301}) {
    EXPECT_FALSE(auth->body_allowed(signed_request("key", 1'700'000'000 + off, ""), kNow));
  }
  EXPECT_FALSE(auth->body_allowed(signed_request("key", -5, ""), kNow));
}

TEST(ReceiverAuth, ASecretThatIsMissingOrUnusedIsAMistake) {
  for (const char* kind : {"bearer", "basic", "header", "hmac"}) {
    EXPECT_FALSE(make({{"auth", text(kind)}})) << kind;
  }
  const auto unused = make({{"bearer_token", text("s3cr3t")}});
  ASSERT_FALSE(unused);
  EXPECT_EQ(unused.error().error_class, ErrorClass::misconfigured);
  EXPECT_EQ(unused.error().message.find("s3cr3t"), std::string::npos);
  EXPECT_FALSE(make({{"auth", text("bearer")}, {"bearer_token", text("  ")}}));
}

}  // namespace
}  // namespace relay::webhook
