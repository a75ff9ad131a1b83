#include "core/arena.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <vector>

namespace relay {
namespace {

RC_GTEST_PROP(Arena, KeepsEveryTextThatWasCopiedIntoIt, (const std::vector<std::string>& texts)) {
  Arena arena;
  std::vector<std::string_view> views;
  for (const auto& text : texts) views.push_back(arena.copy(text));
  const Arena moved = std::move(arena);
  for (std::size_t i = 0; i < texts.size(); ++i) RC_ASSERT(views[i] == texts[i]);
}

TEST(Arena, TakesTextsLargerThanAChunkAmongSmallOnes) {
  Arena arena;
  const std::string large(1 << 20, 'x');
  const auto first = arena.copy("first");
  const auto second = arena.copy(large);
  const auto third = arena.copy("third");
  EXPECT_EQ(first, "first");
  EXPECT_EQ(second, large);
  EXPECT_EQ(third, "third");
  EXPECT_EQ(arena.size(), large.size() + 10);
}

}  // namespace
}  // namespace relay
