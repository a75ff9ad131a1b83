#include "backends/nats/ack_subject.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace relay::nats {
namespace {

TEST(NatsAckSubject, OfAnOldServerIsRead) {
  const auto found = parse_ack_subject("$JS.ACK.orders.c.2.17.9.1650000000000000000.5");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->stream, "orders");
  EXPECT_EQ(found->delivered, 2u);
  EXPECT_EQ(found->sequence, 17u);
  EXPECT_EQ(found->consumer_sequence, 9u);
  EXPECT_EQ(found->time_ns, 1650000000000000000);
  EXPECT_EQ(found->pending, 5u);
}

TEST(NatsAckSubject, WithDomainAndAccountIsRead) {
  const auto found = parse_ack_subject("$JS.ACK.hub.ACC.orders.c.1.17.9.1650000000000000000.0.rnd");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->stream, "orders");
  EXPECT_EQ(found->sequence, 17u);
  EXPECT_EQ(found->pending, 0u);
}

TEST(NatsAckSubject, AnythingElseIsNone) {
  EXPECT_FALSE(parse_ack_subject(""));
  EXPECT_FALSE(parse_ack_subject("_INBOX.x"));
  EXPECT_FALSE(parse_ack_subject("$JS.ACK.orders.c.2.17.9.x.5"));
  EXPECT_FALSE(parse_ack_subject("$JS.ACK.orders.c.2.17.9.1"));
  rc::check([](const std::string& text) { parse_ack_subject("$JS.ACK." + text); });
}

}  // namespace
}  // namespace relay::nats
