#include "backends/webhook/request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/webhook/attempts.h"
#include "backends/webhook/send_order.h"
#include "backends/webhook/status.h"
#include "backends/webhook/verdict.h"
#include "config/checked.h"

namespace relay::webhook {
namespace {

Result<Options> parsed(std::string_view json) {
  return parse_options(config::checked(json, sink_fields()));
}

std::string code_of(std::string_view json) {
  return config::code_of(parsed(json));
}

Message message(std::string_view id, std::string_view key = "k", std::string_view body = "{}") {
  Message made;
  made.id = id;
  made.key = key;
  made.body = body;
  made.outbox_id = 1;
  made.subject = "https://host/hook";
  return made;
}

TEST(WebhookOptions, HaveTheDocumentedDefaults) {
  const auto options = parsed(R"({"url": "https://u:p@host/hook"})");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->method, "POST");
  EXPECT_EQ(options->base, "https://host/hook");
  EXPECT_EQ(options->client.user, "u");
  EXPECT_FALSE(options->client.allow_private);
  EXPECT_TRUE(options->client.tls_verify);
  EXPECT_EQ(options->max_in_flight, 16u);
  EXPECT_EQ(options->timeout, std::chrono::seconds(10));
}

TEST(WebhookOptions, RefuseWhatCannotBe) {
  EXPECT_EQ(code_of(R"({"url": "ftp://host/"})"), "bad_url");
  EXPECT_EQ(code_of(R"({"url": "http://h/", "success": ["2x"]})"), "bad_status");
  EXPECT_EQ(code_of(R"({"url": "http://h/", "request_headers": {"Host": "x"}})"), "bad_header");
  EXPECT_EQ(code_of(R"({"url": "http://h/", "request_headers": {"Proxy-Authorization": "x"}})"),
            "bad_header");
  EXPECT_EQ(code_of(R"({"url": "http://h/", "signature_secret": "whsec_!"})"),
            "bad_signature_secret");
  EXPECT_EQ(code_of(R"({"url": "http://h/", "user": "u", "bearer_token": "t"})"),
            "two_credentials");
  EXPECT_EQ(code_of(R"({"url": "http://h/", "tls_cert": "c"})"), "half_a_certificate");
}

TEST(WebhookStatus, MeansWhatTheSetsSayInTheirOrder) {
  const auto rules = parsed(R"({"url": "http://h/", "success": "2xx, 404"})")->statuses;
  using Meaning = StatusRules::Meaning;
  EXPECT_EQ(rules.of(204), Meaning::delivered);
  EXPECT_EQ(rules.of(404), Meaning::delivered);
  EXPECT_EQ(rules.of(429), Meaning::retry);
  EXPECT_EQ(rules.of(599), Meaning::retry);
  EXPECT_EQ(rules.of(401), Meaning::misconfigured);
  EXPECT_EQ(rules.of(302), Meaning::misconfigured);
  EXPECT_EQ(rules.of(422), Meaning::rejected);
  EXPECT_EQ(rules.of(410), Meaning::pause);
  EXPECT_EQ(parsed(R"({"url": "http://h/", "misconfigured_on_status": "410"})")->statuses.of(410),
            Meaning::misconfigured);
}

TEST(WebhookRequest, SignsAsStandardWebhooksSays) {
  // The example of the published specification's libraries.
  const std::vector<std::string> keys{*signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")};
  EXPECT_EQ(signature(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, R"({"test": 2432232314})"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

TEST(WebhookRequest, HasAnIdWithoutADotForEachId) {
  EXPECT_EQ(webhook_id("p:1-ab:0"), "p:1-ab:0");
  EXPECT_EQ(webhook_id("a.b%2E"), "a%2Eb%252E");
}

TEST(WebhookAttempts, AreUsedUpByTheLastOfThemAndBeginAnewAfterTheEnd) {
  Attempts attempts(2);
  const std::vector<Message> one{message("a")};
  const std::vector<Message> both{message("a"), message("b")};
  EXPECT_FALSE(attempts.refused(one));
  EXPECT_FALSE(attempts.refused(both)) << "b was refused once";
  EXPECT_TRUE(attempts.refused(both));
  attempts.settled(one.front());
  EXPECT_FALSE(attempts.refused(one));
  EXPECT_FALSE(Attempts(std::nullopt).refused(one));
}

TEST(WebhookVerdict, CountsWhatIsAnAnswerToTheMessage) {
  const auto options = *parsed(R"({"url": "http://h/"})");
  const auto counts = [&](int status) {
    http::Response response;
    response.status = status;
    return judge(response, options).counts;
  };
  for (const int status : {408, 500, 502, 504}) EXPECT_TRUE(counts(status)) << status;
  for (const int status : {200, 404, 410, 422, 429, 503}) EXPECT_FALSE(counts(status)) << status;
}

TEST(WebhookRequest, BatchIdsAreThoseOfTheirElements) {
  const std::vector<Message> ab{message("a"), message("b")};
  const std::vector<Message> ba{message("b"), message("a")};
  EXPECT_EQ(batch_id(ab), batch_id(ab));
  EXPECT_NE(batch_id(ab), batch_id(ba));
  EXPECT_EQ(array_of(ab), "[{},{}]");
}

TEST(WebhookRequest, RefusesWhatHttpCannotCarry) {
  const auto options = *parsed(R"({"url": "https://host/hook"})");
  EXPECT_FALSE(refusal(message("a"), options));
  EXPECT_EQ(refusal(message("a\r\nX: y"), options)->code, "bad_header");
  Message elsewhere = message("a");
  elsewhere.subject = "nonsense";
  EXPECT_EQ(refusal(elsewhere, options)->code, "bad_address");
}

TEST(WebhookVerdict, ShowsNoSecrets) {
  const std::vector<std::string> secrets{"topsecret"};
  EXPECT_EQ(excerpt("a\ntopsecret!", secrets), "a ***!");
  EXPECT_EQ(excerpt(std::string(300, 'x'), secrets).size(), 203u);
}

TEST(SendOrder, HoldsARunBackUntilThoseThatShareAKeyWithItAreFinished) {
  const std::vector<Message> messages{message("1", "a"), message("2", "b"), message("3", "b"),
                                      message("4", "c"), message("5", "a")};
  const std::vector<webhook::Run> runs{{0, 2}, {2, 2}, {4, 1}};
  SendOrder order(messages, runs, true);
  EXPECT_EQ(order.next(), 0);
  EXPECT_EQ(order.next(), -1);
  order.finished(0);
  EXPECT_EQ(order.next(), 1);
  EXPECT_EQ(order.next(), 2);
  EXPECT_EQ(order.next(), -1);
}

TEST(SendOrder, LetsAllGoWhereOrderDoesNotMatter) {
  const std::vector<Message> messages{message("1"), message("2")};
  const std::vector<webhook::Run> runs{{0, 1}, {1, 1}};
  SendOrder order(messages, runs, false);
  EXPECT_EQ(order.next(), 0);
  EXPECT_EQ(order.next(), 1);
}

}  // namespace
}  // namespace relay::webhook
