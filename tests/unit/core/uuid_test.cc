#include "core/uuid.h"

#include <gtest/gtest.h>

#include <regex>

namespace relay {
namespace {

TEST(NewUuid, IsOfVersionFourAndAnotherOneEachTime) {
  const std::string one = new_uuid();
  const std::regex form("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  EXPECT_TRUE(std::regex_match(one, form)) << one;
  EXPECT_NE(one, new_uuid());
}

}  // namespace
}  // namespace relay
