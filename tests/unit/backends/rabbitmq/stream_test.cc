#include "backends/rabbitmq/stream.h"

#include <gtest/gtest.h>

#include <string>

#include "backends/rabbitmq/queue.h"
#include "backends/rabbitmq/version.h"

namespace relay::rabbitmq {
namespace {

using Kind = StreamOffset::Kind;
using Sight = StreamPlace::Sight;

constexpr const char* kMark = "0a0a0a0a-0000-0000-0000-000000000001";
constexpr const char* kOther = "0a0a0a0a-0000-0000-0000-000000000002";

StreamStart start(std::string_view text) {
  return *parse_stream_start(text);
}

TEST(StreamStart, IsAWordAnOffsetOrATime) {
  EXPECT_EQ(start("first").at.kind, Kind::first);
  EXPECT_TRUE(start("next").next);
  EXPECT_EQ(start("17").at, (StreamOffset{Kind::offset, 17}));
  EXPECT_EQ(start("2026-01-31T12:00:00Z").at, (StreamOffset{Kind::time, 1769860800}));
  for (const auto* bad :
       {"", "last", "-1", "1.5", "2026-02-30T12:00:00Z", "2026-01-31", "2026-01-31T12:00:00Z ",
        "2026-01-31T24:00:00Z", "99999999999999999999"}) {
    EXPECT_FALSE(parse_stream_start(bad)) << bad;
  }
}

TEST(StreamPlace, BeginsAtTheStartWhereNothingIsSettled) {
  StreamPlace place;
  EXPECT_EQ(place.attach({}, start("first"), {5, {}}), StreamOffset{});
  EXPECT_EQ(place.attach({}, start("3"), {5, {}}), (StreamOffset{Kind::offset, 3}));
  EXPECT_EQ(place.attach({-1000, 0, {}}, start("next"), {5, {}}), (StreamOffset{Kind::time, 1000}));
  EXPECT_FALSE(place.waits_for_proof());
  EXPECT_EQ(place.see(4, kMark), Sight::wanted);
}

TEST(StreamPlace, AStreamThatWasMadeAgainIsReadFromItsBeginning) {
  StreamPlace place;
  EXPECT_EQ(place.attach(made_again_after({9, 0, kMark}), start("3"), {5, {}}), StreamOffset{});
}

TEST(StreamPlace, TheLastSettledMessageIsTheProof) {
  StreamPlace place;
  const Position settled{10, 0, kMark};
  EXPECT_EQ(place.attach(settled, start("first"), {15, {}}), (StreamOffset{Kind::offset, 9}));
  EXPECT_TRUE(place.waits_for_proof());
  EXPECT_EQ(place.see(9, kMark), Sight::settled);
  EXPECT_FALSE(place.waits_for_proof());
  EXPECT_EQ(place.see(10, kOther), Sight::wanted);
}

TEST(StreamPlace, AnotherMessageThereOrASmallerOffsetIsAnotherStream) {
  StreamPlace place;
  const Position settled{10, 0, kMark};
  place.attach(settled, start("first"), {15, {}});
  EXPECT_EQ(place.see(9, kOther), Sight::made_again);
  place.attach(settled, start("first"), {3, {}});
  EXPECT_EQ(place.see(3, kMark), Sight::made_again);
}

TEST(StreamPlace, RetentionMayHavePassed) {
  StreamPlace place;
  const Position settled{10, 0, kMark};
  place.attach(settled, start("first"), {15, {}});
  EXPECT_EQ(place.see(10, kOther), Sight::wanted) << "only the settled one is gone";
  place.attach(settled, start("first"), {15, {}});
  EXPECT_EQ(place.see(13, kOther), Sight::truncated);
  EXPECT_EQ(place.missing(), 3);
  EXPECT_EQ(place.see(14, kOther), Sight::wanted);
}

TEST(StreamPlace, WhatIsDeletedIsNotAskedFor) {
  StreamPlace place;
  EXPECT_EQ(place.attach({}, start("3"), {5, 7}), StreamOffset{});
  EXPECT_EQ(place.attach({}, start("3"), {5, 3}), (StreamOffset{Kind::offset, 3}));
  const Position settled{10, 0, kMark};
  EXPECT_EQ(place.attach(settled, start("first"), {5, 9}), (StreamOffset{Kind::offset, 9}));
  EXPECT_EQ(place.attach(settled, start("first"), {5, 10}), StreamOffset{});
  EXPECT_EQ(place.see(10, kOther), Sight::wanted);
  EXPECT_EQ(place.attach(settled, start("first"), {5, 12}), StreamOffset{});
  EXPECT_EQ(place.see(12, kOther), Sight::truncated);
}

TEST(StreamPlace, WithoutAProofAShorterStreamIsLookedAtFromItsBeginning) {
  StreamPlace place;
  const Position settled{10, 0, kMark};
  place.attach(settled, start("first"), {3, {}});
  place.doubt();
  EXPECT_EQ(place.attach(settled, start("first"), {3, {}}), StreamOffset{});
  EXPECT_FALSE(place.waits_for_proof()) << "it is not doubted for ever";
  EXPECT_EQ(place.see(0, kOther), Sight::made_again);
}

TEST(StreamPlace, ABrokerThatIsOnlySlowIsNotDoubted) {
  StreamPlace place;
  const Position settled{10, 0, kMark};
  place.attach(settled, start("first"), {15, {}});
  place.doubt();
  EXPECT_EQ(place.attach(settled, start("first"), {15, {}}), (StreamOffset{Kind::offset, 9}));
  // Retention has deleted the first 8: the two that are left reach to the settled one.
  place.doubt();
  EXPECT_EQ(place.attach(settled, start("first"), {2, {}}), StreamOffset{});
  EXPECT_EQ(place.see(8, kOther), Sight::look_again);
}

TEST(StreamPlace, ThePositionIsBehindTheLastSettledMessage) {
  StreamPlace place;
  place.attach({0, 2, {}}, start("first"), {15, {}});
  place.add(1, 5, kMark);
  place.add(2, 7, kOther);  // offsets of a stream may have gaps
  EXPECT_EQ(place.settle(0), std::nullopt);
  EXPECT_EQ(place.settle(2), (Position{8, 2, kOther}));
  place.add(3, 8, kMark);
  place.forget();
  EXPECT_EQ(place.settle(3), std::nullopt);
}

TEST(StreamPlace, TheNextOffsetIsKnownUnlessReadingBeginsAtATime) {
  EXPECT_EQ(next_offset({10, 0, {}}, start("next")), 10);
  EXPECT_EQ(next_offset({}, start("first")), 0);
  EXPECT_EQ(next_offset({}, start("4")), 4);
  EXPECT_EQ(next_offset({0, 1, {}}, start("4")), 0);
  EXPECT_EQ(next_offset({-5, 0, {}}, start("next")), std::nullopt);
}

TEST(StreamMessageId, TellsStreamsAndTheirIncarnationsApart) {
  EXPECT_EQ(stream_message_id("p:", "q", 7, 0), "p:q:7");
  EXPECT_EQ(stream_message_id("p:", "q", 7, 1), "p:q:7.1");
  EXPECT_EQ(stream_message_id("", "q", 7, 0), "q:7");
}

TEST(Fingerprint, TellsMessagesApartByAllThatIsTheirOwn) {
  Delivered message;
  message.body = "body";
  const std::string one = fingerprint(message);
  EXPECT_EQ(one.size(), 36u);
  message.redelivered = true;
  EXPECT_EQ(fingerprint(message), one);
  message.timestamp = 1;
  EXPECT_NE(fingerprint(message), one);
  message.timestamp = 0;
  message.message_id = "b";
  message.body = "ody";
  EXPECT_NE(fingerprint(message), one);
}

TEST(QueueType, IsNamedInARefusal) {
  const auto said = [](std::string_view type, std::string_view queue = "q") {
    return type_in_refusal(
        "consuming: PRECONDITION_FAILED - invalid arg 'x-stream-offset' for "
        "queue '" +
        std::string(queue) + "' in vhost '/' of queue type " + std::string(type));
  };
  EXPECT_EQ(said("rabbit_quorum_queue"), QueueType::quorum);
  EXPECT_EQ(said("rabbit_classic_queue"), QueueType::classic);
  EXPECT_EQ(said("rabbit_classic_queue", "a of queue type rabbit_quorum_queue"),
            QueueType::classic);
  EXPECT_EQ(said("rabbit_other_queue"), QueueType::unknown);
  EXPECT_EQ(type_in_refusal("no"), QueueType::unknown);
}

TEST(ServerVersion, SaysWhatTheBrokerDoes) {
  EXPECT_FALSE(parse_version("RabbitMQ", "3.8.9").checks_consumer_arguments());
  EXPECT_TRUE(parse_version("RabbitMQ", "3.10.8").checks_consumer_arguments());
  EXPECT_TRUE(parse_version("RabbitMQ", "4.0.1-rc.2").checks_consumer_arguments());
  EXPECT_FALSE(parse_version("RabbitMQ", "3.13.7").limits_deliveries())
      << "a limit of -1 means there that the first redelivery is one too many";
  EXPECT_TRUE(parse_version("RabbitMQ", "4.0.0").limits_deliveries());
  EXPECT_TRUE(parse_version("RabbitMQ", "10.1").limits_deliveries());
  EXPECT_FALSE(parse_version("LavinMQ", "4.1.0").limits_deliveries());
  for (const auto* bad : {"", "x", "3", "3.", ".", "99999999999999999999.1"}) {
    EXPECT_FALSE(parse_version("RabbitMQ", bad).checks_consumer_arguments()) << bad;
  }
}

}  // namespace
}  // namespace relay::rabbitmq
