#include "core/log.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <cctype>
#include <string>
#include <thread>
#include <vector>

#include "core/repeated_failures.h"

namespace relay {
namespace {

using namespace std::chrono_literals;

// Standard error of the test is a file, so no colour is expected.
template <class Body>
std::vector<std::string> lines_of(log::Format format, log::Level level, Body&& body) {
  testing::internal::CaptureStderr();
  log::configure(format, level);
  body();
  const std::string all = testing::internal::GetCapturedStderr();
  log::configure(log::Format::text, log::Level::info);
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t end = all.find('\n', begin);
    if (end == std::string::npos) {
      lines.push_back(all.substr(begin) + "<no newline>");
      break;
    }
    lines.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::string member(const std::string& line, const char* name) {
  simdjson::dom::parser parser;
  std::string_view value;
  simdjson::dom::element document;
  if (parser.parse(line).get(document)) return "<not JSON>";
  if (document[name].get(value)) return "<none>";
  return std::string(value);
}

// The line behind its time, if it begins with one.
std::string without_time(const std::string& line) {
  static constexpr std::string_view kForm = "0000-00-00T00:00:00.000Z";
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    const char c = i < line.size() ? line[i] : ' ';
    if (kForm[i] == '0' ? std::isdigit(static_cast<unsigned char>(c)) == 0 : c != kForm[i]) {
      return "<no time> " + line;
    }
  }
  return line.substr(kForm.size());
}

const Error kAway{ErrorClass::transient, "no_route", "nats://broker:4222 does not answer",
                  "Start the broker.", 0ms};

TEST(Log, TextHasTimeLevelPipelineEventAndMessage) {
  const auto lines = lines_of(log::Format::text, log::Level::info, [] {
    log::info("pipeline_started", "orders-to-nats", "took over at {}", 42);
    log::warn("listening", "", "port {}", 9090);
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(without_time(lines[0]), " INFO  [orders-to-nats] pipeline_started: took over at 42");
  EXPECT_EQ(without_time(lines[1]), " WARN  listening: port 9090");
}

TEST(Log, LevelsBelowTheConfiguredOneAreNotWritten) {
  const auto lines = lines_of(log::Format::text, log::Level::warn, [] {
    EXPECT_FALSE(log::enabled(log::Level::info));
    log::debug("a", "", "x");
    log::info("b", "", "x");
    log::warn("c", "", "x");
    log::error("d", "", "x");
  });
  EXPECT_EQ(lines.size(), 2u);
}

TEST(Log, LevelsAreParsedByTheirNames) {
  log::Level level{};
  EXPECT_TRUE(log::parse_level("error", level));
  EXPECT_EQ(level, log::Level::error);
  EXPECT_TRUE(log::parse_level("debug", level));
  EXPECT_EQ(level, log::Level::debug);
  EXPECT_FALSE(log::parse_level("loud", level));
}

TEST(Log, TextKeepsAnEventOnOneLine) {
  const auto lines = lines_of(log::Format::text, log::Level::info,
                              [] { log::error("sql", "a\nb", "ERROR: x\nDETAIL:\ty\x1b[31m"); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find("[a\\nb] sql: ERROR: x\\nDETAIL:\ty\\x1b[31m"), std::string::npos)
      << lines[0];
}

TEST(Log, JsonSurvivesWhateverAMessageHolds) {
  const std::string nasty = "quote \" backslash \\ newline \n tab \t nul \x01 unicode \u00e9";
  const auto lines =
      lines_of(log::Format::json, log::Level::info, [&] { log::info("odd", "p\"q", "{}", nasty); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(member(lines[0], "message"), nasty);
  EXPECT_EQ(member(lines[0], "pipeline"), "p\"q");
  EXPECT_EQ(member(lines[0], "level"), "info");
  EXPECT_EQ(member(lines[0], "event"), "odd");
}

TEST(Log, JsonLeavesOutAnEmptyPipeline) {
  const auto lines = lines_of(log::Format::json, log::Level::info, [] { log::info("e", "", "m"); });
  EXPECT_EQ(member(lines.at(0), "pipeline"), "<none>");
}

TEST(Log, FailureTellsClassCodeAndRemedy) {
  const auto json = lines_of(log::Format::json, log::Level::info,
                             [] { log::failure("sink_failed", "json", kAway); });
  ASSERT_EQ(json.size(), 1u);
  EXPECT_EQ(member(json[0], "level"), "warn");
  EXPECT_EQ(member(json[0], "class"), "transient");
  EXPECT_EQ(member(json[0], "code"), "no_route");
  EXPECT_EQ(member(json[0], "remedy"), "Start the broker.");
  EXPECT_EQ(member(json[0], "message"), "nats://broker:4222 does not answer");

  const auto text = lines_of(log::Format::text, log::Level::info, [] {
    Error error = kAway;
    error.error_class = ErrorClass::misconfigured;
    log::failure("sink_failed", "text", error);
  });
  ASSERT_EQ(text.size(), 1u);
  EXPECT_NE(text[0].find("ERROR [text] sink_failed: nats://broker:4222 does not answer "
                         "(misconfigured, no_route) Remedy: Start the broker."),
            std::string::npos)
      << text[0];
}

TEST(Log, ARepeatedFailureIsWrittenOnceAndItsEndIsTold) {
  const auto lines = lines_of(log::Format::text, log::Level::info, [] {
    log::recovered("once", "p");
    for (int i = 0; i < 5; ++i) log::failure("once", "p", kAway);
    log::failure("once", "q", kAway);
    log::recovered("once", "p");
    log::recovered("once", "p");
  });
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_NE(lines[1].find("[q]"), std::string::npos);
  EXPECT_NE(lines[2].find("INFO  [p] once: recovered after 5 failures in 0 s"), std::string::npos)
      << lines[2];
}

TEST(Log, LinesOfManyThreadsAreNotMixed) {
  const auto lines = lines_of(log::Format::json, log::Level::info, [] {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < 250; ++i) log::info("busy", "p", "{} {}", t, std::string(200, 'x'));
      });
    }
  });
  EXPECT_EQ(lines.size(), 1000u);
  for (const std::string& line : lines) ASSERT_EQ(member(line, "event"), "busy") << line;
}

class RepeatedFailuresTest : public testing::Test {
 protected:
  log::RepeatedFailures failures_;
  SteadyClock::time_point now_{};
  using Verdict = log::RepeatedFailures::Verdict;

  Verdict failed(std::string_view what) { return failures_.failed("e", "p", what, now_).verdict; }
};

TEST_F(RepeatedFailuresTest, RemindsOnceAMinuteWithTheCountSinceTheFirst) {
  EXPECT_EQ(failed("x"), Verdict::first);
  int reminders = 0;
  for (int second = 1; second <= 180; ++second) {
    now_ += 1s;
    const auto told = failures_.failed("e", "p", "x", now_);
    EXPECT_NE(told.verdict, Verdict::first);
    if (told.verdict == Verdict::reminder) {
      ++reminders;
      EXPECT_EQ(told.times, static_cast<std::uint64_t>(second) + 1);
      EXPECT_EQ(told.lasting, std::chrono::seconds(second));
    }
  }
  EXPECT_EQ(reminders, 3);
}

TEST_F(RepeatedFailuresTest, TwoFailuresThatTakeTurnsAreEachToldOnce) {
  EXPECT_EQ(failed("x"), Verdict::first);
  EXPECT_EQ(failed("y"), Verdict::first);
  EXPECT_EQ(failed("x"), Verdict::counted);
  EXPECT_EQ(failed("y"), Verdict::counted);
  EXPECT_EQ(failures_.recovered("e", "p", now_)->times, 4u);
}

TEST_F(RepeatedFailuresTest, AFailureAfterALongSilenceIsNew) {
  failed("x");
  now_ += log::RepeatedFailures::kForgotten + 1s;
  EXPECT_EQ(failed("x"), Verdict::first);
}

TEST_F(RepeatedFailuresTest, MemoryIsBoundedWhenEachFailureReadsDifferently) {
  for (int i = 0; i < 1000; ++i) failed(std::to_string(i));
  EXPECT_EQ(failures_.recovered("e", "p", now_)->times, log::RepeatedFailures::kRemembered);
}

}  // namespace
}  // namespace relay
