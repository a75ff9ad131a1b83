#include "backends/kafka/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace relay::kafka {
namespace {

constexpr std::string_view kTwoBrokers = R"({"msg_cnt": 3, "msg_size": 300, "tx_bytes": 1000,
  "rx_bytes": 50, "brokers": {
    "a:1/1": {"state": "UP", "outbuf_cnt": 1, "waitresp_cnt": 2, "txretries": 4, "req_timeouts": 1,
              "rtt": {"avg": 1500, "p99": 3000}},
    "b:1/bootstrap": {"state": "DOWN", "outbuf_cnt": -1, "waitresp_cnt": 1, "txretries": 1,
                      "req_timeouts": 0, "rtt": {"avg": 2000, "p99": 2500}}}})";

TEST(KafkaStatistics, AreSumsAndMaximaOverTheBrokers) {
  const auto found = parse_statistics(kTwoBrokers);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->queued_messages, 3);
  EXPECT_EQ(found->sent_bytes, 1000);
  EXPECT_EQ(found->waiting_requests, 1) << "what is not known counts as nothing";
  EXPECT_EQ(found->requests_in_flight, 3);
  EXPECT_EQ(found->retried_requests, 5);
  EXPECT_DOUBLE_EQ(found->round_trip_average, 0.002);
  EXPECT_DOUBLE_EQ(found->round_trip_p99, 0.003);
  EXPECT_EQ(found->connected_brokers, 1);
}

TEST(KafkaStatistics, WhatIsNoneIsNotShown) {
  Statistics statistics;
  for (const std::string_view text : {"", "[]", "{}", "{\"brokers\": 1}", "{\"brokers\": {\"a\""}) {
    EXPECT_FALSE(parse_statistics(text)) << text;
    statistics.take(text);
  }
  EXPECT_FALSE(statistics.report());
  statistics.take(kTwoBrokers);
  ASSERT_TRUE(statistics.report());
  EXPECT_EQ(statistics.report()->state, "connected");
  EXPECT_EQ(statistics.report()->numbers.size(), 11u);
  statistics.forget();
  EXPECT_FALSE(statistics.report());
}

}  // namespace
}  // namespace relay::kafka
