#include "coordinator/assembly.h"

#include <gtest/gtest.h>

namespace relay::coordinator {
namespace {

tl::unexpected<Error> refused(const std::string& by) {
  return fail(ErrorClass::misconfigured, "refused", by + " is refused", "change " + by);
}

TEST(Assemble, NamesTheProblemsOfBothEnds) {
  Registry registry;
  SinkType sink;
  sink.name = "out";
  sink.make = [](const auto&, const auto&) { return refused("the sink"); };
  registry.add(std::move(sink));
  SourceType source;
  source.name = "in";
  source.make = [](const auto&, const auto&) { return refused("the source"); };
  registry.add(std::move(source));
  config::PipelineConfig config;
  config.name = "p";
  config.source_type = "in";
  config.sink_type = "out";

  postgres::Pool pool({}, 1);
  Metrics metrics{"relay_"};
  const Workshop workshop{registry, pool, metrics, "group", "worker"};
  const auto made = assemble(config, workshop, {}, nullptr);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("the sink is refused"), std::string::npos);
  EXPECT_NE(made.error().message.find("the source is refused"), std::string::npos);
}

}  // namespace
}  // namespace relay::coordinator
