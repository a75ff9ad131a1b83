#include "backends/webhook/receiver_gate.h"

#include <gtest/gtest.h>

namespace relay::webhook {
namespace {

constexpr Framing kWithLength{false, true, false};

ReceiverOptions options_of(config::Node::Object object = {}) {
  const auto checked = config::check(object, receiver_fields(), "test");
  EXPECT_TRUE(checked.problems.empty());
  auto options = parse_receiver_options(checked.values, 32 << 20);
  EXPECT_TRUE(options);
  return *options;
}

config::Node text(std::string value) {
  return config::Node(std::move(value), "");
}

ReceivedRequest post(std::vector<std::pair<std::string, std::string>> headers = {},
                     std::string body = "{}") {
  headers.emplace_back("host", "x");
  return ReceivedRequest{"POST", "/inbox", std::move(headers), std::move(body), {}};
}

class ReceiverGateTest : public ::testing::Test {
 protected:
  explicit ReceiverGateTest(config::Node::Object object = {}) : options(options_of(object)) {}

  int head(const ReceivedRequest& request, Framing framing = kWithLength,
           SteadyClock::time_point now = SteadyClock::now()) const {
    const auto refusal = gate.head(request, framing, now);
    return refusal ? refusal->status : 200;
  }
  int whole(const ReceivedRequest& request) const {
    const auto refusal = gate.whole(request, std::chrono::system_clock::now());
    return refusal ? refusal->status : 200;
  }

  const ReceiverOptions options;
  RequestQueue queue{{1, 1000, std::chrono::milliseconds(1000)}};
  const ReceiverGate gate{options, queue};
};

TEST_F(ReceiverGateTest, ARequestSaysWhereItEnds) {
  EXPECT_EQ(head(post()), 200);
  EXPECT_EQ(head(post({{"transfer-encoding", "Chunked"}}), {false, false, true}), 200);
  EXPECT_EQ(head(post(), {false, false, false}), 411);
  EXPECT_EQ(head(post({{"transfer-encoding", "gzip, chunked"}})), 501);
}

TEST_F(ReceiverGateTest, OnlyTheOldHttpNeedsNoHost) {
  ReceivedRequest request = post();
  request.headers.clear();
  EXPECT_EQ(head(request), 400);
  EXPECT_EQ(head(request, {true, true, false}), 200);
}

TEST_F(ReceiverGateTest, WhatFindsNoRoomIsToComeLater) {
  queue.add(post(), 0);
  EXPECT_EQ(head(post()), 503);
  queue.settle(1, SteadyClock::now());
  EXPECT_EQ(head(post()), 200);
  queue.close();
  EXPECT_EQ(head(post()), 503);
}

TEST_F(ReceiverGateTest, WhereNothingIsSettledNothingMoreComesIn) {
  const auto now = SteadyClock::now();
  queue.add(post(), 0);
  queue.take({}, Deadline::after(std::chrono::milliseconds(0)), {});
  EXPECT_EQ(head(post(), kWithLength, now + std::chrono::seconds(60)), 503);
}

TEST_F(ReceiverGateTest, ABodyIsWhatItIsAnnouncedToBe) {
  EXPECT_EQ(whole(post({{"content-type", "application/json"}}, "{nonsense")), 400);
  EXPECT_EQ(whole(post({{"content-type", "text/plain"}}, "{nonsense")), 200);
}

class ReceiverGateWithSecret : public ReceiverGateTest {
 protected:
  ReceiverGateWithSecret()
      : ReceiverGateTest({{"auth", text("bearer")}, {"bearer_token", text("secret")}}) {}
};

TEST_F(ReceiverGateWithSecret, WhoMayNotWriteLearnsNothingElse) {
  queue.close();
  EXPECT_EQ(head(post()), 401);
  EXPECT_EQ(head(post({{"authorization", "Bearer secret"}})), 503);
}

TEST(ReceiverAnswer, ARefusalIsJsonWithTheHeadersOfItsStatus) {
  const http::Answer later = refused(not_now("the \"reason\""), "Bearer");
  EXPECT_EQ(later.status, 503);
  EXPECT_EQ(later.body, "{\"error\":\"unavailable\",\"message\":\"the \\\"reason\\\"\"}\n");
  ASSERT_EQ(later.headers.size(), 1u);
  EXPECT_EQ(later.headers[0].first, "Retry-After");
  EXPECT_EQ(refused({405, "x", "y"}, {}).headers[0].first, "Allow");
  EXPECT_EQ(refused({401, "x", "y"}, "Basic").headers[0].second, "Basic");
  EXPECT_TRUE(refused({401, "x", "y"}, {}).headers.empty());
  EXPECT_EQ(committed().status, 200);
}

}  // namespace
}  // namespace relay::webhook
