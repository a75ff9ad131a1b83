#include "backends/kafka/topic.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace relay::kafka {
namespace {

std::string escaped(std::string_view value) {
  std::string out;
  escape_topic(out, value);
  return out;
}

/// What the documentation tells readers to do.
std::string unescaped(std::string_view text) {
  if (text == ".-") return {};
  std::string out;
  while (!text.empty()) {
    if (text.size() >= 4 && text.starts_with(".-")) {
      out.push_back(static_cast<char>(std::stoi(std::string(text.substr(2, 2)), nullptr, 16)));
      text.remove_prefix(4);
    } else {
      out.push_back(text.front());
      text.remove_prefix(1);
    }
  }
  return out;
}

TEST(KafkaTopic, LegalNamesStayAsTheyAre) {
  EXPECT_EQ(escaped("orders_2024-01.v1"), "orders_2024-01.v1");
  EXPECT_EQ(topic_problem("orders_2024-01.v1"), "");
}

TEST(KafkaTopic, OtherBytesAreWrittenInHex) {
  EXPECT_EQ(escaped("a b"), "a.-20b");
  EXPECT_EQ(escaped("ü"), ".-C3.-BC");
  EXPECT_EQ(escaped(".-"), ".-2E-");
  EXPECT_EQ(escaped(""), ".-");
}

TEST(KafkaTopic, AnyValueEscapesToALegalNameAndBack) {
  rc::check([](const std::string& value) {
    const std::string text = escaped(value);
    RC_ASSERT(unescaped(text) == value);
    if (text.size() <= 249 && text != "." && text != "..") RC_ASSERT(topic_problem(text).empty());
  });
}

TEST(KafkaTopic, IllegalNamesAreToldApart) {
  EXPECT_NE(topic_problem(""), "");
  EXPECT_NE(topic_problem("."), "");
  EXPECT_NE(topic_problem(".."), "");
  EXPECT_NE(topic_problem("a/b"), "");
  EXPECT_NE(topic_problem(std::string(250, 'x')), "");
  EXPECT_EQ(topic_problem(std::string(249, 'x')), "");
}

}  // namespace
}  // namespace relay::kafka
