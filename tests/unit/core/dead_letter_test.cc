#include "core/dead_letter.h"

#include <gtest/gtest.h>

#include <optional>

namespace relay {
namespace {

TEST(DeadLetter, HasEverythingThatSendingTheMessageAgainTakes) {
  std::optional<DeadLetter> letter;
  {
    const std::string body = "{\"a\": 1}";  // gone, as a batch is, when the letter is read
    const std::string value = "00-ab";
    const Header header{"traceparent", value};
    Message message;
    message.id = "p:1-aa:0";
    message.subject = "orders";
    message.key = "k";
    message.op = "insert";
    message.body = body;
    message.content_type = "application/json";
    message.stream_table = "orders";
    message.headers = {&header, 1};
    message.outbox_id = 1;
    message.full_refresh = true;
    letter = DeadLetter::from(message, Error{ErrorClass::rejected, "too_large", "m", "r", {}});
  }
  EXPECT_EQ(letter->error.code, "too_large");
  std::vector<Header> headers;
  const Message again = letter->to_message(headers);
  EXPECT_EQ(again.id, "p:1-aa:0");
  EXPECT_EQ(again.subject, "orders");
  EXPECT_EQ(again.key, "k");
  EXPECT_EQ(again.op, "insert");
  EXPECT_EQ(again.body, "{\"a\": 1}");
  EXPECT_EQ(again.content_type, "application/json");
  EXPECT_EQ(again.stream_table, "orders");
  EXPECT_EQ(again.outbox_id, 1);
  EXPECT_TRUE(again.full_refresh);
  ASSERT_EQ(again.headers.size(), 1u);
  EXPECT_EQ(again.headers[0].name, "traceparent");
  EXPECT_EQ(again.headers[0].value, "00-ab");
}

}  // namespace
}  // namespace relay
