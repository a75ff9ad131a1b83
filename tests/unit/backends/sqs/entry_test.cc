#include "backends/sqs/entry.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/sqs/errors.h"
#include "backends/sqs/options.h"
#include "backends/sqs/receipts.h"
#include "config/checked.h"

namespace relay::sqs {
namespace {

Message message(std::string_view body) {
  Message made;
  made.id = "p:1:0.abcd";
  made.body = body;
  return made;
}

SinkOptions options() {
  const std::string_view json = R"({"queue_url": "https://sqs.eu-west-1.amazonaws.com/1/q"})";
  return *parse_sink_options(config::checked(json, sink_fields()));
}

TEST(SqsEntry, HoldsBodyAndAttributes) {
  const auto entry = make_entry(message(R"({"a":"ü"})"), options(), {});
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->fields, R"(,"MessageBody":"{\"a\":\"ü\"}","MessageAttributes":{"pgtrickle-id":)"
                           R"({"DataType":"String","StringValue":"p:1:0.abcd"}})");
  EXPECT_EQ(entry->bytes, 10 + std::string("pgtrickle-idStringp:1:0.abcd").size());
}

TEST(SqsEntry, RefusesWhatSqsDoesNotTake) {
  EXPECT_EQ(make_entry(message(""), options(), {}).error().code, "empty");
  EXPECT_EQ(make_entry(message("\x01"), options(), {}).error().code, "forbidden_characters");
  EXPECT_EQ(make_entry(message("\xff"), options(), {}).error().code, "forbidden_characters");
}

TEST(SqsEntry, IsAsLargeAsTheLimitWithItsAttributes) {
  const std::string attributes = "pgtrickle-idStringp:1:0.abcd";
  const SizeLimit limit{2048, SizeLimit::Said::by_queue};
  const std::string largest(2048 - attributes.size(), 'x');
  EXPECT_TRUE(make_entry(message(largest), options(), limit));
  const auto refused = make_entry(message(largest + "x"), options(), limit);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, "too_large");
  EXPECT_NE(refused.error().message.find("MaximumMessageSize is 2048"), std::string::npos);
}

TEST(SqsSizeLimit, IsTheSmallerOneOfQueueAndOption) {
  using Said = SizeLimit::Said;
  const auto is = [](SizeLimit limit, std::size_t bytes, Said said) {
    return limit.bytes == bytes && limit.said == said;
  };
  EXPECT_TRUE(is(SizeLimit::of({}, {}), 1'048'576, Said::by_sqs));
  EXPECT_TRUE(is(SizeLimit::of(2048, {}), 2048, Said::by_queue));
  EXPECT_TRUE(is(SizeLimit::of({}, 4096), 4096, Said::by_option));
  EXPECT_TRUE(is(SizeLimit::of(2048, 4096), 2048, Said::by_queue));
  EXPECT_TRUE(is(SizeLimit::of(4096, 2048), 2048, Said::by_option));
}

TEST(SqsSizeLimit, IsReadFromTheQueuesAttributes) {
  const auto told = [](std::string_view text) {
    return largest_message_of(R"({"Attributes":{"MaximumMessageSize":)" + std::string(text) + "}}");
  };
  EXPECT_EQ(told(R"("262144")"), 262144u);
  for (const std::string_view text :
       {R"("")", R"("0")", R"("-1")", R"("1KiB")", R"("99999999999999999999")", "null", "7", "["}) {
    EXPECT_FALSE(told(text)) << text;
  }
  EXPECT_FALSE(largest_message_of("{}"));
  EXPECT_FALSE(largest_message_of(""));
}

TEST(SqsEntry, KnowsLegalText) {
  EXPECT_TRUE(is_legal_text("\t\n\r ü 𝄞 \xEF\xBF\xBD"));
  for (const std::string_view text :
       {std::string_view("\0", 1), std::string_view("\xED\xA0\x80"), std::string_view("\xC0\x80"),
        std::string_view("\xEF\xBF\xBE"), std::string_view("\xF4\x90\x80\x80"),
        std::string_view("\xE2\x82")}) {
    EXPECT_FALSE(is_legal_text(text));
  }
}

TEST(SqsEntry, HashesIdsThatAreTooLongOrHoldOtherCharacters) {
  EXPECT_EQ(fifo_id("p:1:0.abcd"), "p:1:0.abcd");
  EXPECT_EQ(fifo_id(std::string(128, 'x')), std::string(128, 'x'));
  EXPECT_EQ(fifo_id(std::string(129, 'x')).size(), 64u);
  EXPECT_EQ(fifo_id("with space").size(), 64u);
  EXPECT_NE(fifo_id("with space"), fifo_id("with  space"));
}

TEST(SqsErrors, AreClassedByWhatCanBeDone) {
  const auto class_of = [](std::string_view code, bool sender) {
    return service_error("q", code, "", sender).error_class;
  };
  EXPECT_EQ(class_of("AWS.SimpleQueueService.NonExistentQueue", true), ErrorClass::misconfigured);
  EXPECT_EQ(class_of("RequestThrottled", true), ErrorClass::throttled);
  EXPECT_EQ(class_of("InvalidMessageContents", true), ErrorClass::rejected);
  EXPECT_EQ(class_of("SomethingNew", true), ErrorClass::rejected);
  EXPECT_EQ(class_of("SomethingNew", false), ErrorClass::transient);
}

TEST(SqsOptions, ReadTheRegionFromTheHost) {
  EXPECT_EQ(region_of_host("sqs.eu-west-1.amazonaws.com"), "eu-west-1");
  EXPECT_EQ(region_of_host("sqs.cn-north-1.amazonaws.com.cn"), "cn-north-1");
  EXPECT_EQ(region_of_host("eu-west-1.queue.amazonaws.com"), "eu-west-1");
  EXPECT_EQ(region_of_host("localhost"), "");
}

TEST(SqsReceipts, KeepsWhatIsUnderWayUntilItIsForgotten) {
  Receipts receipts;
  const auto now = SteadyClock::now();
  EXPECT_EQ(receipts.add("a", "r1", now), 1);
  EXPECT_EQ(receipts.add("b", "r2", now + std::chrono::hours(1)), 2);
  EXPECT_EQ(receipts.add("a", "r3", now), 0);  // it came again: the newest receipt deletes it
  ASSERT_EQ(receipts.settled(1).size(), 1u);
  EXPECT_EQ(receipts.settled(1)[0].receipt, "r3");
  EXPECT_EQ(receipts.due(now, now + std::chrono::hours(1)).size(), 1u);
  EXPECT_TRUE(receipts.due(now, now).empty());
  receipts.forget(1);
  EXPECT_EQ(receipts.add("a", "r4", now), 3);
  EXPECT_EQ(receipts.take_all().size(), 2u);
  EXPECT_TRUE(receipts.settled(9).empty());
}

}  // namespace
}  // namespace relay::sqs
