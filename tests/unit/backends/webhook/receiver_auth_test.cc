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
  for (const char* kind : {"bearer", "basic", "header", "hmac", "github", "stripe", "slack"}) {
    EXPECT_FALSE(make({{"auth", text(kind)}})) << kind;
  }
  const auto unused = make({{"bearer_token", text("s3cr3t")}});
  ASSERT_FALSE(unused);
  EXPECT_EQ(unused.error().error_class, ErrorClass::misconfigured);
  EXPECT_EQ(unused.error().message.find("s3cr3t"), std::string::npos);
  EXPECT_FALSE(make({{"auth", text("bearer")}, {"bearer_token", text("  ")}}));
}

Result<ReceiverAuth> provider(const char* kind, const char* secret) {
  return make({{"auth", text(kind)}, {"signature_secret", text(secret)}});
}

TEST(ReceiverAuth, TheWorkedExampleOfGitHubIsRight) {
  const auto* scheme = signature_scheme(AuthKind::github);
  EXPECT_EQ(scheme->write(hmac_sha256("It's a Secret to Everybody", "Hello, World!")),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
  // Its words would be secrets of their own.
  EXPECT_FALSE(provider("github", "It's a Secret to Everybody"));
}

TEST(ReceiverAuth, ASignatureOfGitHubCoversTheBody) {
  const auto auth = provider("github", "other-secret a-secret");
  ASSERT_TRUE(auth);
  // hmac.new(b"a-secret", b"Hello, World!", "sha256") of Python
  const std::string right =
      "sha256=fd9560c826f36d0c3c4f72048584eb1d6c51d829e68681c66b530a7d50700df4";
  const auto allows = [&](std::vector<std::pair<std::string, std::string>> headers,
                          const char* body = "Hello, World!") {
    return auth->body_allowed(with(std::move(headers), body), kNow);
  };
  EXPECT_TRUE(allows({{"x-hub-signature-256", right}}));
  EXPECT_FALSE(allows({{"x-hub-signature-256", right}}, "Hello, World!\n"));
  EXPECT_FALSE(allows({{"x-hub-signature-256", right}, {"x-hub-signature-256", right}}));
  for (const std::string& wrong :
       {std::string(), std::string("sha256="), right.substr(7), right.substr(0, 70), right + "0",
        "SHA256=" + right.substr(7), "sha1=" + right.substr(7), right + "," + right}) {
    EXPECT_FALSE(allows({{"x-hub-signature-256", wrong}})) << wrong;
  }
  EXPECT_FALSE(allows({{"x-hub-signature", right}}));
  EXPECT_FALSE(auth->head_allowed(with({{"x-hub-signature", right}})));
  EXPECT_EQ(auth->secret_header(), "x-hub-signature-256");
}

TEST(ReceiverAuth, TheWorkedExampleOfSlackIsRight) {
  const auto auth = provider("slack", "other-secret 8f742231b10e8888abcd99yyyzzz85a5");
  ASSERT_TRUE(auth);
  const std::string body =
      "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id="
      "G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command="
      "%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J"
      "%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121."
      "803a0bc887a14d10d2c447fce8b6703c";
  const std::string right = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
  const system_clock::time_point then(seconds(1'531'420'618));
  const auto allows = [&](std::vector<std::pair<std::string, std::string>> headers, int late = 0) {
    return auth->body_allowed(with(std::move(headers), body), then + seconds(late));
  };
  const std::pair<std::string, std::string> signature{"x-slack-signature", right};
  const std::pair<std::string, std::string> time{"x-slack-request-timestamp", "1531420618"};
  EXPECT_TRUE(allows({signature, time}));
  EXPECT_TRUE(allows({signature, time}, 300));
  EXPECT_FALSE(allows({signature, time}, 301));
  EXPECT_FALSE(allows({signature, time}, -301));
  EXPECT_FALSE(allows({signature}));
  EXPECT_FALSE(allows({time}));
  EXPECT_FALSE(allows({signature, time, time}));
  EXPECT_FALSE(allows({signature, signature, time}));
  for (const char* wrong : {"", "1531420619", "01531420618", " 1531420618", "1531420618.0",
                            "99999999999999999999", "-1531420618", "now"}) {
    EXPECT_FALSE(allows({signature, {"x-slack-request-timestamp", wrong}})) << wrong;
  }
}

TEST(ReceiverAuth, StripeMayGiveSeveralSignatures) {
  const auto auth = provider("stripe", "whsec_test_secret");  // no base64: the text is the key
  ASSERT_TRUE(auth);
  const std::string right = "v1=654b43d3508ecadb3f8cefc4bc7d3d2bdc5ba9e03bf2c89b2d0657a8e24e4543";
  const std::string other = "v1=" + std::string(64, '0');
  const system_clock::time_point then(seconds(1'492'774'577));
  const auto allows = [&](const std::string& header, int late = 0) {
    return auth->body_allowed(
        with({{"stripe-signature", header}}, R"({"id":"evt_1","object":"event"})"),
        then + seconds(late));
  };
  const std::string at = "t=1492774577,";
  EXPECT_TRUE(allows(at + right));
  EXPECT_TRUE(allows(at + right, 300));
  EXPECT_FALSE(allows(at + right, 301));
  EXPECT_FALSE(allows(at + right, -301));
  EXPECT_TRUE(allows(at + other + "," + right + ",v0=" + std::string(64, '1')));
  EXPECT_TRUE(allows(right + ", t=1492774577"));
  for (const std::string& wrong :
       {std::string(), std::string(","), at, right, at + other, at + "v0=" + right.substr(3),
        at + right.substr(3), at + at + right, "t=1492774578," + right, "t=," + right,
        at + "v1=", at + right + "0", at + right.substr(0, 66), std::string("t=1492774577"),
        at + "V1=" + right.substr(3), at + "v1 =" + right.substr(3)}) {
    EXPECT_FALSE(allows(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace relay::webhook
