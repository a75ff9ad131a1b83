#include "backends/pg_inbox/options.h"

#include <gtest/gtest.h>

#include "backends/pg_inbox/sink.h"
#include "config/checked.h"

namespace relay::pg_inbox {
namespace {

Result<Options> parsed(std::string_view json) {
  return parse_options(config::checked(json, sink_fields()));
}

TEST(InboxOptions, AnInboxByNameOrByTable) {
  EXPECT_EQ(parsed(R"({"inbox_name":"x"})")->inbox_name, "x");
  EXPECT_EQ(parsed(R"({"name":"x"})")->inbox_name, "x");
  EXPECT_EQ(parsed(R"({"inbox_table":"t"})")->inbox_table, "t");
  EXPECT_EQ(parsed(R"({"table":"t"})")->inbox_table, "t");
  using Codes = std::vector<std::string>;
  EXPECT_EQ(config::codes_of_checks("{}", sink_fields()), Codes{"missing_option"});
  EXPECT_EQ(config::codes_of_checks(R"({"inbox_name":"x","inbox_table":"t"})", sink_fields()),
            Codes{"conflict"});
}

TEST(InboxOptions, WhatIsNotSaidIsLeftToTheInbox) {
  const auto options = parsed(R"({"inbox_name":"x"})");
  EXPECT_FALSE(options->max_retries || options->schedule || options->with_dead_letter ||
               options->retention_hours);
  const auto all = parsed(R"({"inbox_name":"x","max_retries":5,"schedule":"2s",
      "with_dead_letter":false,"retention_hours":9})");
  EXPECT_EQ(all->max_retries, 5);
  EXPECT_EQ(all->schedule, "2s");
  EXPECT_EQ(all->with_dead_letter, false);
  EXPECT_EQ(all->retention_hours, 9);
}

TEST(InboxOptions, AColumnMapNamesFieldsOfAMessage) {
  const auto options = parsed(R"({"inbox_name":"x","column_map":{"event_id":"id","headers":""}})");
  EXPECT_EQ(options->column_map.at("event_id"), "id");
  const auto wrong = parsed(R"({"inbox_name":"x","column_map":{"id":"event_id"}})");
  EXPECT_EQ(wrong.error().code, "bad_column_map");
  EXPECT_EQ(parsed(R"({"inbox_name":"x","column_map":{"event_id":""}})").error().code,
            "bad_column_map");
}

TEST(InboxOptions, AnIdThatAnotherMessageHas) {
  const auto chosen = [](std::string_view json) { return parsed(json)->on_id_conflict; };
  EXPECT_EQ(chosen(R"({"inbox_name":"x"})"), OnIdConflict::store);
  EXPECT_EQ(chosen(R"({"inbox_name":"x","on_id_conflict":"reject"})"), OnIdConflict::reject);
  EXPECT_EQ(chosen(R"({"inbox_name":"x","on_id_conflict":"ignore"})"), OnIdConflict::ignore);
}

TEST(InboxSink, WithoutADatabaseItSaysSo) {
  InboxSink sink(*parsed(R"({"inbox_name":"x"})"), nullptr);
  const auto opened = sink.open({});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().error_class, ErrorClass::misconfigured);
  Message message;
  message.id = "i";
  message.body = "1";
  const auto outcomes = sink.deliver({&message, 1}, Deadline::after(std::chrono::seconds(1)), {});
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].kind, Outcome::Kind::unknown);
  EXPECT_TRUE(outcomes[0].error);
}

}  // namespace
}  // namespace relay::pg_inbox
