#include "backends/nats/event.h"

#include <gtest/gtest.h>
#include <nats/nats.h>

#include <memory>
#include <utility>
#include <vector>

namespace relay::nats {
namespace {

struct FreeMessage {
  void operator()(natsMsg* message) const { natsMsg_Destroy(message); }
};

class NatsEvent : public ::testing::Test {
 protected:
  /// The library reports what a message lacks through state that exists once it is open.
  static void SetUpTestSuite() { ASSERT_EQ(nats_Open(-1), NATS_OK); }

  Record record(const std::vector<std::pair<const char*, const char*>>& headers = {}) {
    natsMsg* raw = nullptr;
    EXPECT_EQ(natsMsg_Create(&raw, "orders.eu", nullptr, payload_.data(),
                             static_cast<int>(payload_.size())),
              NATS_OK);
    const std::unique_ptr<natsMsg, FreeMessage> message(raw);
    for (const auto& [name, value] : headers) {
      EXPECT_EQ(natsMsgHeader_Set(raw, name, value), NATS_OK);
    }
    const AckSubject place{.stream = "a:b", .sequence = 5, .time_ns = 1'500'000'001};
    return to_record(raw, place, 77, rules_, mapping_, arena_);
  }
  std::string_view id(const std::vector<std::pair<const char*, const char*>>& headers = {}) {
    return std::get<Event>(record(headers).content).id;
  }

  std::string payload_ = "{}";
  EventRules rules_{.id_scope = "p:", .max_record_bytes = 100};
  FieldMapping mapping_;
  Arena arena_;
};

TEST_F(NatsEvent, IsNamedByARelayElseByItsPublisherElseByItsPlaceInTheStream) {
  EXPECT_EQ(id(), "p:a%3Ab:77:5");
  EXPECT_EQ(id({{"Nats-Msg-Id", "m:1"}}), "p:a%3Ab:77:id:m:1");
  EXPECT_EQ(id({{"pgtrickle-id", "x:1"}, {"Nats-Msg-Id", "m"}}), "x:1");
  EXPECT_EQ(id({{"pgtrickle-id", ""}}), "p:a%3Ab:77:5");
}

TEST_F(NatsEvent, HasSubjectHeadersAndTimeOfTheMessage) {
  const Record made = record({{"Content-Type", "text/plain"}});
  const auto& event = std::get<Event>(made.content);
  EXPECT_EQ(event.type, "orders.eu");
  EXPECT_EQ(event.key, "");
  EXPECT_EQ(event.payload, "{}");
  EXPECT_EQ(event.content_type, "text/plain");
  EXPECT_EQ(made.headers, R"({"Content-Type":"text/plain"})");
  EXPECT_EQ(made.created_at.time_since_epoch(), std::chrono::microseconds(1'500'000));
}

TEST_F(NatsEvent, BeyondTheLimitIsRefusedAndKept) {
  payload_.assign(101, 'x');
  const Record made = record();
  ASSERT_TRUE(made.refused);
  EXPECT_EQ(made.refused->message,
            "the message 5 of stream 'a:b' on 'orders.eu' has 101 bytes, more than "
            "max_record_bytes (100)");
  EXPECT_EQ(std::get<Event>(made.content).payload, payload_);
}

}  // namespace
}  // namespace relay::nats
