#include "backends/webhook/receiver_request.h"

#include <gtest/gtest.h>

#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_provider.h"

namespace relay::webhook {
namespace {

ReceivedRequest post(std::string target,
                     std::vector<std::pair<std::string, std::string>> headers = {},
                     std::string body = "{}") {
  return ReceivedRequest{"POST", std::move(target), std::move(headers), std::move(body), {}};
}

struct Made {
  Arena arena;
  Record record;
  const Event& event() const { return std::get<Event>(record.content); }
};

Made record_of(const ReceivedRequest& request, const EventRules& rules = {},
               config::Node::Object mapping = {}) {
  const auto checked = config::check(mapping, FieldMapping::fields(), "test");
  const auto made = FieldMapping::make(checked.values);
  EXPECT_TRUE(made);
  Made result;
  result.record = to_record(request, rules, *made, "new", result.arena);
  return result;
}

int status_of(const std::optional<Refusal>& refusal) {
  return refusal ? refusal->status : 200;
}

TEST(ReceiverRequest, ItsPathAndWhatLiesBelowAreTaken) {
  for (const char* target :
       {"/inbox", "/inbox/", "/inbox/a/b", "/inbox?x=1", "/%69nbox", "http://h/inbox/a"}) {
    EXPECT_EQ(status_of(check_head(post(target), "/inbox")), 200) << target;
  }
  for (const char* target : {"/", "/inboxes", "/other/inbox", "http://h"}) {
    EXPECT_EQ(status_of(check_head(post(target), "/inbox")), 404) << target;
  }
  EXPECT_EQ(status_of(check_head(post("/inbox/%zz"), "/inbox")), 400);
  EXPECT_EQ(status_of(check_head(post("*"), "/inbox")), 400);
  EXPECT_EQ(status_of(check_head(post("/anything"), "/")), 200);
}

TEST(ReceiverRequest, OnlyPostAndPutBringMessages) {
  for (const char* method : {"GET", "HEAD", "DELETE", "PATCH", "OPTIONS"}) {
    auto request = post("/inbox");
    request.method = method;
    EXPECT_EQ(status_of(check_head(request, "/inbox")), 405) << method;
  }
  EXPECT_EQ(status_of(check_head(post("/inbox", {{"content-encoding", "gzip"}}), "/inbox")), 415);
}

TEST(ReceiverRequest, WhatIsCalledJsonIsJson) {
  const auto with = [](std::string type, std::string body) {
    return status_of(check_body(post("/inbox", {{"content-type", std::move(type)}}, body)));
  };
  EXPECT_EQ(with("application/json", "[1, 123456789012345678901234567890.5]"), 200);
  EXPECT_EQ(with("Application/JSON; charset=utf-8", "{"), 400);
  EXPECT_EQ(with("application/cloudevents+json", "{} x"), 400);
  EXPECT_EQ(with("application/json", ""), 400);
  EXPECT_EQ(with("text/plain", "{"), 200);
  EXPECT_EQ(status_of(check_body(post("/inbox", {}, "{"))), 200);
}

TEST(ReceiverRequest, IdTypeAndHeadersComeFromTheRequest) {
  const auto made = record_of(post("/inbox/orders", {{"idempotency-key", "k1"},
                                                     {"webhook-id", "w1"},
                                                     {"x-event-type", "paid"},
                                                     {"content-type", "application/json"},
                                                     {"authorization", "Bearer s3cr3t"},
                                                     {"cookie", "s3cr3t"},
                                                     {"webhook-signature", "v1,x"},
                                                     {"traceparent", "00-a-b-01"},
                                                     {"x-a", "1"},
                                                     {"x-a", "2"}}));
  EXPECT_EQ(made.event().id, "k1");
  EXPECT_EQ(made.event().type, "paid");
  EXPECT_EQ(made.event().payload, "{}");
  EXPECT_EQ(made.record.headers,
            R"({"idempotency-key":"k1","webhook-id":"w1","x-event-type":"paid",)"
            R"("content-type":"application/json","traceparent":"00-a-b-01","x-a":"1, 2"})");
}

TEST(ReceiverRequest, WithoutHeadersThereAreDefaults) {
  auto made = record_of(post("/inbox/orders/"));
  EXPECT_EQ(made.event().id, "new");
  EXPECT_EQ(made.event().type, "orders");
  EXPECT_EQ(made.event().content_type, "application/json");
  EXPECT_EQ(made.record.headers, "");
  made = record_of(post("/inbox", {}, "plain"));
  EXPECT_EQ(made.event().type, "inbox");
  EXPECT_EQ(made.event().content_type, "application/octet-stream");
}

TEST(ReceiverRequest, AnIdThatAClientGaveIsScopedAndOneThatARelayGaveIsNot) {
  const EventRules rules{"p:", AuthKind::none, ""};
  EXPECT_EQ(
      record_of(post("/inbox", {{"idempotency-key", "k"}, {"webhook-id", "w"}}), rules).event().id,
      "p:k");
  EXPECT_EQ(record_of(post("/inbox", {{"webhook-id", "w"}}), rules).event().id, "p:w");
  EXPECT_EQ(
      record_of(post("/inbox", {{"pgtrickle-id", "x:1"}, {"webhook-id", "x:1"}}), rules).event().id,
      "x:1");
}

TEST(ReceiverRequest, OnlyTheIdThatASignatureCoversCountsWhereRequestsAreSigned) {
  const auto request =
      post("/inbox", {{"pgtrickle-id", "w"}, {"idempotency-key", "k"}, {"webhook-id", "w"}});
  EXPECT_EQ(record_of(request, {"p:", AuthKind::hmac, ""}).event().id, "p:w");
  EXPECT_EQ(record_of(post("/inbox", {{"pgtrickle-id", "x"}, {"idempotency-key", "k"}}),
                      {"p:", AuthKind::hmac, ""})
                .event()
                .id,
            "new");
}

TEST(ReceiverRequest, TheMappingGoesBeforeTheDefaultsAndSeesNoSecret) {
  const auto value = [](const char* text) { return config::Node(std::string(text), ""); };
  const auto made =
      record_of(post("/inbox/a", {{"x-key", "s3cr3t"}, {"x-type", "t"}}, R"({"id":7,"who":"ann"})"),
                {"p:", AuthKind::none, "x-key"},
                {{"id_from", value("json:/id")},
                 {"event_type_from", value("header:X-Type")},
                 {"aggregate_id_from", value("json:/who")},
                 {"trace_id_from", value("header:X-Key")}});
  EXPECT_EQ(made.event().id, "7");
  EXPECT_EQ(made.event().type, "t");
  EXPECT_EQ(made.event().key, "ann");
  EXPECT_EQ(made.record.headers.find("s3cr3t"), std::string::npos);
}

TEST(ReceiverRequest, WhatNoTextHoldsIsWrittenInBase64) {
  const auto made = record_of(post("/inbox/%00", {{"idempotency-key", "\xff"}}));
  EXPECT_EQ(made.event().id, "base64:/w==");
  EXPECT_TRUE(made.event().type.find('\0') == std::string_view::npos);
}

TEST(ReceiverRequest, AProviderSaysIdTypeAndKeyInItsOwnWay) {
  const auto of = [](AuthKind kind, std::string body,
                     std::vector<std::pair<std::string, std::string>> headers = {}) {
    headers.emplace_back("pgtrickle-id", "forged");
    headers.emplace_back("x-event-type", "forged");
    const Made made = record_of(post("/inbox/in", headers, std::move(body)), {"p:", kind, ""});
    return std::string(made.event().id) + "|" + std::string(made.event().type) + "|" +
           std::string(made.event().key);
  };
  EXPECT_EQ(of(AuthKind::github, R"({"repository":{"id":1,"full_name":"a\/b"}})",
               {{"x-github-delivery", "d-1"}, {"x-github-event", "push"}}),
            "p:d-1|push|a/b");
  EXPECT_EQ(of(AuthKind::stripe,
               R"({"id":"evt_1","type":"charge.paid","data":{"object":{"id":"ch_1"}}})"),
            "p:evt_1|charge.paid|ch_1");
  EXPECT_EQ(of(AuthKind::slack, R"({"type":"event_callback","event_id":"Ev1","team_id":"T1",)"
                                R"("event":{"type":"message","channel":"C1"}})"),
            "p:Ev1|message|C1");
  EXPECT_EQ(of(AuthKind::slack, R"({"type":"event_callback","event_id":"Ev2","team_id":"T1",)"
                                R"("event":{"type":"channel_created","channel":{"id":"C"}}})"),
            "p:Ev2|channel_created|T1");
  EXPECT_EQ(of(AuthKind::stripe, " \n{\"id\":\"evt_1\",\"type\":\"t\"}"), "p:evt_1|t|");
  for (const AuthKind kind : {AuthKind::github, AuthKind::stripe, AuthKind::slack}) {
    EXPECT_EQ(of(kind, "{}"), "new|in|");
    EXPECT_EQ(of(kind, R"({"id":null,"event_id":{},"type":[],"event":7,"data":"x"})"), "new|in|");
  }
}

TEST(ReceiverRequest, OnlyAJsonObjectIsAnEventOfAProvider) {
  const auto checked = [](AuthKind kind, std::string type, std::string body) {
    return status_of(check_provider_body(
        kind, post("/inbox", {{"content-type", std::move(type)}}, std::move(body))));
  };
  for (const AuthKind kind : {AuthKind::github, AuthKind::stripe, AuthKind::slack}) {
    EXPECT_EQ(checked(kind, "application/json; charset=utf-8", "{}"), 200);
    EXPECT_EQ(checked(kind, "application/json", "[]"), 400);
    EXPECT_EQ(checked(kind, "application/json", ""), 400);
    EXPECT_EQ(checked(kind, "application/x-www-form-urlencoded", "payload=%7B%7D"), 415);
    EXPECT_EQ(checked(kind, "", "{}"), 415);
  }
  EXPECT_EQ(checked(AuthKind::hmac, "text/plain", "[]"), 200);
}

TEST(ReceiverRequest, AHandshakeIsAnsweredAndNothingElseIsTakenForOne) {
  const auto answer = [](AuthKind kind, std::string body, const char* event = "push") {
    const auto made =
        handshake_answer(kind, post("/inbox", {{"x-github-event", event}}, std::move(body)));
    return made ? made->body : "none";
  };
  EXPECT_EQ(answer(AuthKind::github, R"({"zen":"Design for failure."})", "ping"),
            "{\"status\":\"pong\"}\n");
  EXPECT_EQ(answer(AuthKind::github, R"({"zen":"Design for failure."})"), "none");
  EXPECT_EQ(answer(AuthKind::github, R"({"ref":"a push, with another header"})", "ping"), "none");
  EXPECT_EQ(answer(AuthKind::slack, R"({"type":"url_verification","challenge":"a\"b"})"),
            "{\"challenge\":\"a\\\"b\"}\n");
  EXPECT_EQ(answer(AuthKind::slack, R"({"type":"url_verification"})"), "none");
  EXPECT_EQ(
      answer(AuthKind::slack, R"({"type":"event_callback","event":{"type":"url_verification"}})"),
      "none");
  EXPECT_EQ(answer(AuthKind::stripe, R"({"type":"url_verification","challenge":"x"})"), "none");
  EXPECT_EQ(answer(AuthKind::none, R"({"zen":"x"})", "ping"), "none");
}

}  // namespace
}  // namespace relay::webhook
