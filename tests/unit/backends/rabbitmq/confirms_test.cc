#include "backends/rabbitmq/confirms.h"

#include <gtest/gtest.h>

#include "backends/rabbitmq/errors.h"
#include "backends/rabbitmq/event.h"

namespace relay::rabbitmq {
namespace {

using Found = std::vector<std::size_t>;

Confirms published(std::size_t count) {
  Confirms confirms;
  for (std::size_t message = 0; message < count; ++message) confirms.published(message);
  return confirms;
}

TEST(RabbitConfirms, OneConfirmIsAboutOneMessage) {
  Confirms confirms = published(3);
  EXPECT_EQ(confirms.confirmed(2, false), Found{1});
  EXPECT_EQ(confirms.in_flight(), 2u);
  EXPECT_EQ(confirms.open(), (Found{0, 2}));
}

TEST(RabbitConfirms, AMultipleOneIsAboutAllBeforeItThatAreOpen) {
  Confirms confirms = published(5);
  confirms.confirmed(2, false);
  EXPECT_EQ(confirms.confirmed(4, true), (Found{0, 2, 3}));
  EXPECT_EQ(confirms.open(), Found{4});
}

TEST(RabbitConfirms, TagZeroIsAboutEverything) {
  Confirms confirms = published(3);
  EXPECT_EQ(confirms.confirmed(0, true), (Found{0, 1, 2}));
  EXPECT_EQ(confirms.in_flight(), 0u);
}

TEST(RabbitConfirms, WhatWasConfirmedOrNeverPublishedIsNone) {
  Confirms confirms = published(2);
  confirms.confirmed(1, false);
  EXPECT_EQ(confirms.confirmed(1, false), Found{});
  EXPECT_EQ(confirms.confirmed(3, false), Found{});
  EXPECT_EQ(confirms.confirmed(3, true), Found{});
  EXPECT_EQ(confirms.confirmed(0, false), Found{});
  EXPECT_EQ(confirms.in_flight(), 1u);
}

TEST(RabbitConfirms, TagsGoOnOverDeliveries) {
  Confirms confirms = published(2);
  confirms.confirmed(2, true);
  confirms.published(7);
  EXPECT_EQ(confirms.confirmed(3, false), Found{7});
}

TEST(RabbitErrors, SayWhatTheOperatorMustMend) {
  const auto class_of = [](int code) { return closed_by_broker(code, "", "", "").error_class; };
  for (const int code : {403, 404, 406, 530}) {
    EXPECT_EQ(class_of(code), ErrorClass::misconfigured) << code;
  }
  for (const int code : {320, 504, 541}) EXPECT_EQ(class_of(code), ErrorClass::transient) << code;
}

TEST(RabbitEvent, TakesIdTypeAndHeadersFromTheMessage) {
  Delivered message;
  message.message_id = "m1";
  message.routing_key = "order.paid";
  message.headers = {{"trace", "t"}, {"n", "5"}};
  message.body = "{}";
  message.timestamp = 1763700000;
  Arena arena;
  const Record record = to_record(message, {"p:", 100}, FieldMapping(), arena);
  const auto& event = std::get<relay::Event>(record.content);
  EXPECT_EQ(event.id, "p:m1");
  EXPECT_EQ(event.type, "order.paid");
  EXPECT_EQ(event.payload, "{}");
  EXPECT_EQ(record.headers, R"({"trace":"t","n":"5"})");
  EXPECT_EQ(record.created_at.time_since_epoch(), std::chrono::seconds(1763700000));
}

TEST(RabbitEvent, TakesTheIdThatARelaySentAsItIs) {
  Delivered message;
  message.message_id = "m1";
  message.headers = {{"pgtrickle-id", "other:1"}};
  Arena arena;
  const Record record = to_record(message, {"p:", 100}, FieldMapping(), arena);
  EXPECT_EQ(std::get<relay::Event>(record.content).id, "other:1");
}

TEST(RabbitEvent, TooLargeIsRefusedAndKept) {
  Delivered message;
  message.body = "12345";
  Arena arena;
  const Record record = to_record(message, {"p:", 4}, FieldMapping(), arena);
  ASSERT_TRUE(record.refused);
  EXPECT_EQ(std::get<relay::Event>(record.content).payload, "12345");
}

}  // namespace
}  // namespace relay::rabbitmq
