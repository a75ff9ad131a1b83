#include "backends/nats/subject.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

#include "backends/nats/options.h"

namespace relay::nats {
namespace {

std::string escaped(std::string_view value) {
  std::string out;
  escape_token(out, value);
  return out;
}

std::string unescaped(std::string_view text) {
  if (text == "%") return {};
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
    } else {
      out.push_back(static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16)));
      i += 2;
    }
  }
  return out;
}

TEST(EscapeToken, LeavesOrdinaryTextAlone) {
  EXPECT_EQ(escaped("Zürich-7_a$"), "Zürich-7_a$");
}

TEST(EscapeLevels, KeepsTheDotsBetweenLevels) {
  const auto levels = [](std::string_view value) {
    std::string out;
    escape_levels(out, value);
    return out;
  };
  EXPECT_EQ(levels("order.created"), "order.created");
  EXPECT_EQ(levels("a b"), "a%20b");
  EXPECT_EQ(levels(".a..b."), "%.a.%.b.%");
  EXPECT_EQ(levels(""), "%");
}

TEST(EscapeToken, EscapesWhatASubjectGivesAMeaning) {
  EXPECT_EQ(escaped("a.b c*d>e%f\t\x7f"), "a%2Eb%20c%2Ad%3Ee%25f%09%7F");
  EXPECT_EQ(escaped(""), "%");
}

TEST(EscapeToken, IsReversibleAndAlwaysLegal) {
  rc::check([](const std::string& value) {
    RC_ASSERT(unescaped(escaped(value)) == value);
    RC_ASSERT(subject_problem("a." + escaped(value.substr(0, 900))).empty());
  });
}

TEST(SubjectProblem, FindsWhatAServerWouldRefuse) {
  for (const char* legal : {"a", "a.b.c", "orders.%", "$KV.b.k", "a*b", "grün.1"}) {
    EXPECT_EQ(subject_problem(legal), "") << legal;
  }
  for (const char* illegal :
       {"", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB x", "*", "a.>", "a.*.b"}) {
    EXPECT_NE(subject_problem(illegal), "") << illegal;
  }
  EXPECT_NE(subject_problem(std::string(4000, 'x')), "");
}

TEST(SubjectPattern, CoversWhatATemplateCanBecome) {
  EXPECT_EQ(subject_pattern("orders.>"), "orders.>");
  EXPECT_EQ(subject_pattern("orders.{op}"), "orders.*");
  EXPECT_EQ(subject_pattern("a.{{ b.c }}.x-{key}.d"), "a.*.*.d");
  EXPECT_EQ(subject_pattern("a.{{ b.c }}.x-{key}.d", true), "a.>");
  EXPECT_EQ(subject_pattern("a.b", true), "a.b");
}

TEST(SubjectTemplate, APrefixWithAnEndingWildcardMeansTheStreamTable) {
  EXPECT_EQ(*subject_template_of("orders.>"), "orders.{stream_table}");
  EXPECT_EQ(*subject_template_of("a.b.>"), "a.b.{stream_table}");
  EXPECT_EQ(*subject_template_of(""), "{stream_table}");
  EXPECT_EQ(*subject_template_of("revenue.{{ region }}"), "revenue.{{ region }}");
}

TEST(SubjectTemplate, AnyOtherWildcardIsAConfigurationError) {
  for (const char* subject : {">", "*", "orders.*", "orders.*.>", "a.*.b"}) {
    const auto made = subject_template_of(subject);
    ASSERT_FALSE(made) << subject;
    EXPECT_EQ(made.error().error_class, ErrorClass::misconfigured);
  }
}

TEST(HeaderProblem, FindsWhatWouldBreakTheProtocol) {
  EXPECT_EQ(header_problem("traceparent", "00-ab-cd-01"), "");
  EXPECT_EQ(header_problem("x", ""), "");
  EXPECT_NE(header_problem("", "v"), "");
  EXPECT_NE(header_problem("a b", "v"), "");
  EXPECT_NE(header_problem("a:b", "v"), "");
  EXPECT_NE(header_problem("a", "v\r\nX: y"), "");
}

TEST(Endpoints, AreReadFromUrls) {
  const auto endpoints =
      parse_endpoints("nats://u%40x:p%3Aq@db1:4333, tls://tok@db2 ,[::1]:99,host");
  ASSERT_TRUE(endpoints);
  ASSERT_EQ(endpoints->size(), 4u);
  const auto& [first, second, third, fourth] =
      std::tie((*endpoints)[0], (*endpoints)[1], (*endpoints)[2], (*endpoints)[3]);
  EXPECT_EQ(first.address, "db1:4333");
  EXPECT_EQ(first.user, "u@x");
  EXPECT_EQ(first.password, "p:q");
  EXPECT_FALSE(first.tls);
  EXPECT_EQ(second.address, "db2:4222");
  EXPECT_EQ(second.token, "tok");
  EXPECT_TRUE(second.tls);
  EXPECT_EQ(third.host, "::1");
  EXPECT_EQ(third.address, "[::1]:99");
  EXPECT_EQ(fourth.address, "host:4222");
}

TEST(Endpoints, AWrongUrlIsAConfigurationErrorThatShowsNoSecret) {
  for (const char* url : {"", "nats://", "http://a", "nats://h:0", "nats://h:70000", "nats://h:x",
                          "nats://u:s3cret%zz@h", "nats://a,,b", "nats://:4222"}) {
    const auto endpoints = parse_endpoints(url);
    ASSERT_FALSE(endpoints) << url;
    EXPECT_EQ(endpoints.error().error_class, ErrorClass::misconfigured);
    EXPECT_EQ(endpoints.error().message.find("s3cret"), std::string::npos);
  }
}

}  // namespace
}  // namespace relay::nats
