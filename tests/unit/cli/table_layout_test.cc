#include "cli/table_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace relay::cli {
namespace {

std::size_t width_of(const std::vector<std::size_t>& widths) {
  std::size_t sum = 0;
  for (const std::size_t width : widths) sum += width == 0 ? 0 : width + 2;
  return sum - std::min<std::size_t>(sum, 2);
}

TEST(TableLayout, LeavesATableThatFitsAsItIs) {
  const std::vector<ColumnNeed> needs{{10, 1}, {20, 1}};
  EXPECT_EQ(lay_out(needs, 32), (std::vector<std::size_t>{10, 20}));
}

TEST(TableLayout, ShrinksTheWidestColumnFirst) {
  const std::vector<ColumnNeed> needs{{10, 1}, {100, 1}, {8, 1}};
  EXPECT_EQ(lay_out(needs, 60), (std::vector<std::size_t>{10, 38, 8}));
}

TEST(TableLayout, LeavesOutTheLeastImportantColumnOnlyWhenAllHaveShrunk) {
  const std::vector<ColumnNeed> needs{{30, 5}, {30, 0}, {30, 3}};
  EXPECT_NE(lay_out(needs, 34)[1], 0u);
  const auto widths = lay_out(needs, 33);
  EXPECT_EQ(widths[1], 0u);
  EXPECT_GT(widths[0], 10u);
}

TEST(TableLayout, NeverIsWiderThanTheWindow) {
  std::mt19937 dice(3);
  for (int round = 0; round < 5000; ++round) {
    std::vector<ColumnNeed> needs(1 + dice() % 12);
    for (ColumnNeed& need : needs) need = {1 + dice() % 120, static_cast<int>(dice() % 5)};
    const std::size_t total = 20 + dice() % 200;
    const auto widths = lay_out(needs, total);
    EXPECT_LE(width_of(widths), total);
    EXPECT_TRUE(std::ranges::any_of(widths, [](std::size_t width) { return width > 0; }));
  }
}

TEST(TableLayout, KnowsThatANameMattersMoreThanAVersion) {
  EXPECT_GT(importance_of("name"), importance_of("last_error"));
  EXPECT_GT(importance_of("last_error"), importance_of("version"));
}

}  // namespace
}  // namespace relay::cli
