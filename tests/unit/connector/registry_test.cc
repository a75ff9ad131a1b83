#include "connector/registry.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

SinkType sink_named(std::string name, std::vector<std::string> aliases = {}) {
  SinkType type;
  type.name = std::move(name);
  type.aliases = std::move(aliases);
  return type;
}

TEST(Registry, FindsASinkByNameAndByAlias) {
  Registry registry;
  registry.add(sink_named("webhook", {"http"}));
  ASSERT_NE(registry.sink("webhook"), nullptr);
  EXPECT_EQ(registry.sink("http"), registry.sink("webhook"));
  EXPECT_EQ(registry.sink("kafka"), nullptr);
  EXPECT_EQ(registry.source("webhook"), nullptr);
}

TEST(Registry, SaysWhatIsKnownAndWhatWasProbablyMeant) {
  Registry registry;
  registry.add(sink_named("stdout"));
  registry.add(sink_named("nats"));
  const Error error = registry.missing_sink("natz");
  EXPECT_EQ(error.error_class, ErrorClass::misconfigured);
  EXPECT_EQ(error.code, "unknown_backend");
  EXPECT_NE(error.message.find("natz"), std::string::npos);
  EXPECT_NE(error.remedy.find("'nats'"), std::string::npos);
  EXPECT_NE(error.remedy.find("stdout"), std::string::npos);
}

TEST(Registry, SaysHowToGetABackendThatWasLeftOut) {
  Registry registry;
  registry.leave_out("nats");
  registry.leave_out("stdout");
  for (const char* name : {"nats", "stdout", "file"}) {
    const Error error = registry.missing_sink(name);
    EXPECT_EQ(error.code, "backend_left_out") << name;
    EXPECT_NE(error.remedy.find("-DRELAY_BACKENDS"), std::string::npos);
  }
  EXPECT_EQ(registry.missing_source("nats").code, "backend_left_out");
  EXPECT_EQ(registry.missing_source("kafka").code, "unknown_backend");
}

}  // namespace
}  // namespace relay
