#include "backends/sqs/received.h"

#include <gtest/gtest.h>

namespace relay::sqs {
namespace {

std::string id_of(const Received& message, const FieldMapping& mapping = FieldMapping()) {
  Arena arena;
  const Record record = to_record(message, "q", {"p:", 100}, mapping, arena);
  return std::string(std::get<Event>(record.content).id);
}

Received message() {
  Received received;
  received.id = "m-1";
  received.deduplication_id = "d";
  return received;
}

TEST(SqsReceived, IsNamedByItsMessageIdAndNeverByItsDeduplicationId) {
  EXPECT_EQ(id_of(message()), "p:m-1");
}

TEST(SqsReceived, KeepsTheIdThatARelaySent) {
  Received received = message();
  received.attributes = {{"pgtrickle-id", "other:1"}};
  EXPECT_EQ(id_of(received), "other:1");
}

TEST(SqsReceived, OffersItsOwnIdsToTheMapping) {
  for (const auto& [name, id] : {std::pair("MessageId", "m-1"), {"MessageDeduplicationId", "d"}}) {
    const config::Node::Object options = {
        {"id_from", config::Node(std::string("header:") + name, "")}};
    const auto checked = config::check(options, FieldMapping::fields(), "test");
    const auto mapping = FieldMapping::make(checked.values);
    ASSERT_TRUE(mapping);
    EXPECT_EQ(id_of(message(), *mapping), id);
  }
}

}  // namespace
}  // namespace relay::sqs
