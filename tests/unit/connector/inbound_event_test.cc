#include "connector/inbound_event.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "connector/content_type.h"

namespace relay {
namespace {

/// A broker's message, and the record that becomes of it.
class InboundEventTest : public ::testing::Test {
 protected:
  void map(const config::Node::Object& options) {
    const auto checked = config::check(options, FieldMapping::fields(), "test");
    auto mapping = FieldMapping::make(checked.values);
    ASSERT_TRUE(mapping);
    mapping_ = std::move(*mapping);
  }
  static config::Node text(const char* value) { return {std::string(value), ""}; }

  Record record() {
    const MappedMessage message{.subject = "orders",
                                .key = key_,
                                .payload = payload_,
                                .header = [&](std::string_view name) -> std::optional<std::string> {
                                  const auto found = headers_.find(name);
                                  return found == headers_.end() ? std::nullopt
                                                                 : std::optional(found->second);
                                }};
    InboundEvent event(mapping_, message, arena_);
    event.set_id("the-id", [&] {
      ++defaults_used_;
      return std::string("own-id");
    });
    event.set_type("the-type", [] { return std::string_view("own-type"); });
    event.set_payload(payload_, "text/plain");
    event.limit_payload(limit_, [] { return "the message 7"; });
    event.set_created_at(Timestamp(std::chrono::seconds(1)));
    for (const auto& [name, value] : headers_) event.add_header(name, value);
    return std::move(event).record();
  }
  Event event() { return std::get<Event>(record().content); }

  FieldMapping mapping_;
  Arena arena_;
  std::string key_ = "k";
  std::string payload_ = R"({"a":7})";
  std::map<std::string, std::string, std::less<>> headers_;
  std::int64_t limit_ = 100;
  int defaults_used_ = 0;
};

TEST_F(InboundEventTest, WithoutMappingAndHeadersHasTheSourcesDefaults) {
  const Record made = record();
  const auto& event = std::get<Event>(made.content);
  EXPECT_EQ(event.id, "own-id");
  EXPECT_EQ(event.type, "own-type");
  EXPECT_EQ(event.key, "k");
  EXPECT_EQ(event.payload, R"({"a":7})");
  EXPECT_EQ(event.content_type, "text/plain");
  EXPECT_EQ(made.created_at.time_since_epoch(), std::chrono::seconds(1));
  EXPECT_EQ(made.headers, "");
  EXPECT_FALSE(made.refused);
}

TEST_F(InboundEventTest, HeadersGoBeforeTheDefaultsAndEmptyOnesDoNot) {
  headers_ = {{"the-id", "x:1"}, {"the-type", ""}};
  EXPECT_EQ(event().id, "x:1");
  EXPECT_EQ(event().type, "own-type");
  EXPECT_EQ(defaults_used_, 0) << "a default is not computed in vain";
}

TEST_F(InboundEventTest, TheMappingGoesBeforeTheHeaders) {
  headers_ = {{"the-id", "x:1"}, {"the-type", "paid"}};
  map({{"id_from", text("json:/a")},
       {"event_type_from", text("subject")},
       {"aggregate_id_from", text("header:the-type")}});
  EXPECT_EQ(event().id, "7");
  EXPECT_EQ(event().type, "orders");
  EXPECT_EQ(event().key, "paid");
}

TEST_F(InboundEventTest, AMappedTraceIdIsAHeader) {
  headers_ = {{"b", "\xff"}};
  map({{"trace_id_from", text("key")}});
  EXPECT_EQ(record().headers, R"({"b":"base64:/w==","trace_id":"k"})");
}

TEST_F(InboundEventTest, APayloadBeyondTheLimitIsRefusedAndKept) {
  limit_ = 7;
  EXPECT_FALSE(record().refused);
  limit_ = 6;
  const Record made = record();
  ASSERT_TRUE(made.refused);
  EXPECT_EQ(made.refused->code, "too_large");
  EXPECT_EQ(made.refused->message, "the message 7 has 7 bytes, more than max_record_bytes (6)");
  EXPECT_EQ(std::get<Event>(made.content).payload, payload_);
}

TEST_F(InboundEventTest, OutlivesWhatItWasMadeOf) {
  headers_ = {{"a", "1"}};
  const Record made = record();
  key_.assign("?");
  payload_.assign(payload_.size(), '?');
  headers_.clear();
  EXPECT_EQ(std::get<Event>(made.content).key, "k");
  EXPECT_EQ(std::get<Event>(made.content).payload, R"({"a":7})");
  EXPECT_EQ(made.headers, R"({"a":"1"})");
}

TEST_F(InboundEventTest, APayloadThatIsInTheArenaIsNotCopied) {
  const std::string_view payload = arena_.copy(payload_);
  const MappedMessage message{.subject = {}, .key = {}, .payload = payload, .header = {}};
  InboundEvent event(mapping_, message, arena_);
  event.set_id("the-id", [] { return std::string("own-id"); });
  event.set_payload_in_arena(payload, {});
  const Record made = std::move(event).record();
  EXPECT_EQ(std::get<Event>(made.content).id, "own-id");
  EXPECT_EQ(std::get<Event>(made.content).payload.data(), payload.data());
  EXPECT_EQ(std::get<Event>(made.content).content_type, "");
}

TEST(ContentTypeIn, IsTheFirstHeaderThatSaysIt) {
  using Headers = std::vector<std::pair<std::string_view, std::string_view>>;
  EXPECT_EQ(content_type_in(Headers{{"a", "1"}, {"Content-Type", "x"}, {"content_type", "y"}}),
            "x");
  EXPECT_EQ(content_type_in(Headers{{"a", "1"}}), "");
}

}  // namespace
}  // namespace relay
