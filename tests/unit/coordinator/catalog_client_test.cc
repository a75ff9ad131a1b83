#include "coordinator/catalog_client.h"

#include <gtest/gtest.h>

#include <new>
#include <vector>

namespace relay::coordinator {
namespace {

using config::PipelineConfig;

PipelineConfig pipeline(const std::string& name, const std::string& place, bool enabled = true) {
  PipelineConfig config;
  config.name = name;
  config.place = place;
  config.enabled = enabled;
  config.fingerprint = place;
  return config;
}

TEST(Merge, ListsThePipelinesOfCatalogAndFile) {
  const auto merged = merge({pipeline("a", "sql")}, {pipeline("b", "file")});
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(merged[0].name, "a");
  EXPECT_EQ(merged[1].name, "b");
}

TEST(Merge, LeavesOutDisabledPipelines) {
  EXPECT_TRUE(merge({pipeline("a", "sql", false)}, {pipeline("b", "file", false)}).empty());
}

TEST(Merge, ANameThatBothUseIsAnErrorOfThatPipelineAlone) {
  const auto merged =
      merge({pipeline("a", "sql"), pipeline("b", "sql")}, {pipeline("a", "relay.toml:3:1")});
  ASSERT_EQ(merged.size(), 2u);
  ASSERT_EQ(merged[0].problems.size(), 1u);
  EXPECT_EQ(merged[0].problems[0].code, "name_taken");
  EXPECT_NE(merged[0].problems[0].message.find("relay.toml:3:1"), std::string::npos);
  EXPECT_NE(merged[0].fingerprint, "sql");
  EXPECT_TRUE(merged[1].problems.empty());
}

TEST(Merge, ANameThatADisabledPipelineHoldsIsStillTaken) {
  const auto merged = merge({pipeline("a", "sql", false)}, {pipeline("a", "file")});
  ASSERT_EQ(merged.size(), 1u);
  EXPECT_EQ(merged[0].problems.size(), 1u);
}

TEST(CatalogClient, ReadsTheFileAgainAfterMemoryRanOut) {
  int reads = 0;
  const config::Catalogue catalogue;
  CatalogClient client(catalogue, {}, [&]() -> Result<std::vector<PipelineConfig>> {
    ++reads;
    throw std::bad_alloc();
  });
  ownership::LeaseSession session(nullptr, {}, "group", "worker");
  EXPECT_THROW((void)client.configuration(session, {}), std::bad_alloc);
  EXPECT_TRUE(client.reload_is_due());
  EXPECT_THROW((void)client.configuration(session, {}), std::bad_alloc);
  EXPECT_EQ(reads, 2);
}

TEST(ControlNotice, NamesThePipelineAndWhetherItWasResumed) {
  const auto paused = control_notice_of(R"({"event":"control","name":"a","action":"pause"})");
  ASSERT_TRUE(paused);
  EXPECT_EQ(paused->pipeline, "a");
  EXPECT_FALSE(paused->resume);
  EXPECT_TRUE(control_notice_of(R"({"event":"control","name":"a","action":"resume"})")->resume);
  EXPECT_FALSE(control_notice_of(R"({"event":"control","name":"a"})")->resume);
}

TEST(ControlNotice, IsNotMadeOfAnyOtherPayload) {
  for (const char* payload : {"", "{", "[]", "7", R"({"event":"upsert","name":"a"})",
                              R"({"event":"control"})", R"({"event":"control","name":7})"}) {
    EXPECT_FALSE(control_notice_of(payload)) << payload;
  }
}

}  // namespace
}  // namespace relay::coordinator
