#include "connector/endpoint_walk.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace relay {
namespace {

/// Three servers, and what became of the attempts to reach them.
class EndpointWalkTest : public ::testing::Test {
 protected:
  Result<std::string> open() {
    tried_.clear();
    return walk_.open_first(servers_, [&](const std::string& server) -> Result<std::string> {
      tried_.push_back(server);
      const auto error = errors_.find(server);
      if (error == errors_.end()) return server;
      return fail(error->second, "e", server, "mend " + server);
    });
  }
  using Names = std::vector<std::string>;

  EndpointWalk walk_;
  Names servers_{"a", "b", "c"};
  std::map<std::string, ErrorClass> errors_;
  Names tried_;
};

TEST_F(EndpointWalkTest, StaysWithTheServerThatServes) {
  EXPECT_EQ(open(), "a");
  EXPECT_EQ(open(), "a");
  EXPECT_EQ(tried_, Names{"a"});
}

TEST_F(EndpointWalkTest, AServerThatFailsGivesWayToTheNextOneForGood) {
  errors_["a"] = ErrorClass::transient;
  EXPECT_EQ(open(), "b");
  EXPECT_EQ(tried_, (Names{"a", "b"}));
  errors_.clear();
  EXPECT_EQ(open(), "b");
  errors_["b"] = errors_["c"] = ErrorClass::transient;
  EXPECT_EQ(open(), "a");
  EXPECT_EQ(tried_, (Names{"b", "c", "a"}));
}

TEST_F(EndpointWalkTest, TriesEachServerOnceAndTellsOfServersThatAreAwayAndOfMistakes) {
  errors_ = {
      {"a", ErrorClass::transient}, {"b", ErrorClass::misconfigured}, {"c", ErrorClass::transient}};
  const auto opened = open();
  EXPECT_EQ(tried_, (Names{"a", "b", "c"}));
  EXPECT_EQ(opened.error().error_class, ErrorClass::transient);
  EXPECT_EQ(opened.error().message, "b; and a");
}

TEST_F(EndpointWalkTest, ACancelledAttemptEndsTheWalkWhereItIs) {
  errors_ = {{"a", ErrorClass::transient}, {"b", ErrorClass::cancelled}};
  EXPECT_EQ(open().error().error_class, ErrorClass::cancelled);
  EXPECT_EQ(tried_, (Names{"a", "b"}));
  errors_.clear();
  EXPECT_EQ(open(), "b");
}

}  // namespace
}  // namespace relay
