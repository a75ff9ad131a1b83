#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "config/fields.h"
#include "connector/registry.h"

namespace relay::outbox {

void register_backend(Registry& registry);

namespace {

config::Node text(std::string value) {
  return {std::move(value), ""};
}

class OutboxType : public testing::Test {
 protected:
  OutboxType() { register_backend(registry_); }

  const SourceType& type() const { return *registry_.source("outbox"); }

  config::Values values(const config::Node::Object& options) const {
    return config::check(options, type().options, "test").values;
  }

 private:
  Registry registry_;
};

TEST_F(OutboxType, FindsTheOutboxByEitherOption) {
  ASSERT_TRUE(type().own_outboxes);
  EXPECT_EQ(type().own_outboxes->name(values({{"stream_table", text("orders")}})), "orders");
  EXPECT_EQ(type().own_outboxes->name(values({{"table", text("orders")}})), "orders");
  EXPECT_EQ(type().own_outboxes->name(values({{"outbox", text("events")}})), "events");
  EXPECT_EQ(type().own_outboxes->name(values({})), "");
}

TEST_F(OutboxType, TakesExactlyOneName) {
  const auto problems_of = [&](const config::Node::Object& options) {
    return config::check(options, type().options, "test").problems.size();
  };
  EXPECT_EQ(problems_of({}), 1u);
  EXPECT_EQ(problems_of({{"outbox", text("events")}}), 0u);
  EXPECT_EQ(problems_of({{"stream_table", text("orders")}}), 0u);
  EXPECT_EQ(problems_of({{"stream_table", text("orders")}, {"outbox", text("events")}}), 1u);
}

TEST_F(OutboxType, WithoutADatabaseTheSourceIsMadeAndCannotBeOpened) {
  auto made = type().make(values({{"outbox", text("events")}}), BackendContext());
  ASSERT_TRUE(made);
  const auto opened = (*made)->open({});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, "no_database");
  EXPECT_EQ((*made)->watched_sequence(), "");
  (*made)->close();
}

}  // namespace
}  // namespace relay::outbox
