#include "outbox/delta_cutter.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

namespace relay::outbox {
namespace {

struct TestRow {
  bool inserted;
  std::string data;
};

struct Part {
  int number;
  std::int64_t first;
  std::int64_t last;
  bool operator==(const Part&) const = default;
};
void showValue(const Part& part, std::ostream& out) {
  out << part.number << ": " << part.first << ".." << part.last;
}

constexpr std::size_t kNoLimit = 1u << 30;

/// The parts of `rows`, read from behind row `done` on.
std::vector<Part> cut(const std::vector<TestRow>& rows, std::int64_t max_rows,
                      std::size_t max_bytes = kNoLimit, std::size_t done = 0) {
  DeltaCutter cutter(max_rows, max_bytes, {"id"});
  std::vector<Part> parts;
  const auto finish = [&] {
    parts.push_back({cutter.part(), cutter.first(), cutter.last()});
    cutter.end_part();
  };
  for (std::size_t i = done; i < rows.size(); ++i) {
    const DeltaRow row{static_cast<std::int64_t>(i) + 1, rows[i].inserted, rows[i].data};
    if (!cutter.takes(row)) finish();
    cutter.add(row);
  }
  if (cutter.rows() > 0) finish();
  return parts;
}

TestRow inserted(int id) {
  return {true, fmt::format(R"({{"id": {}, "x": 1}})", id)};
}
TestRow deleted(int id) {
  return {false, fmt::format(R"({{"x": 2, "id": {}}})", id)};
}

TEST(DeltaCutter, CutsAfterSoManyRows) {
  const std::vector<TestRow> rows = {inserted(1), inserted(2), inserted(3), inserted(4),
                                     inserted(5)};
  EXPECT_EQ(cut(rows, 2), (std::vector<Part>{{1, 1, 2}, {2, 3, 4}, {3, 5, 5}}));
  EXPECT_EQ(cut(rows, 5), (std::vector<Part>{{1, 1, 5}}));
}

TEST(DeltaCutter, DoesNotTearAnUpdateApart) {
  const std::vector<TestRow> rows = {inserted(1), deleted(2), inserted(2), inserted(3)};
  EXPECT_EQ(cut(rows, 2), (std::vector<Part>{{1, 1, 3}, {2, 4, 4}}));
}

TEST(DeltaCutter, TearsRowsOfDifferentKeysApart) {
  const std::vector<TestRow> rows = {inserted(1), deleted(2), inserted(4), inserted(5)};
  EXPECT_EQ(cut(rows, 2), (std::vector<Part>{{1, 1, 2}, {2, 3, 4}}));
}

TEST(DeltaCutter, WithoutAKeyNothingBelongsTogether) {
  DeltaCutter cutter(1, kNoLimit, {});
  cutter.add({1, false, R"({"id": 1})"});
  EXPECT_FALSE(cutter.takes({2, true, R"({"id": 1})"}));
}

TEST(DeltaCutter, CutsBeforeAPartGrowsTooLarge) {
  const std::vector<TestRow> rows = {inserted(1), inserted(2), inserted(3)};
  const std::size_t two_rows = 2 * rows[0].data.size();
  EXPECT_EQ(cut(rows, 3, two_rows), (std::vector<Part>{{1, 1, 2}, {1, 3, 3}}));
  EXPECT_EQ(cut(rows, 3, 1), (std::vector<Part>{{1, 1, 1}, {1, 2, 2}, {1, 3, 3}}));
}

TEST(DeltaCutter, ARowTooLargeToBeFetchedStandsAlone) {
  const std::vector<TestRow> rows = {inserted(1), {true, ""}, inserted(3)};
  EXPECT_EQ(cut(rows, 10), (std::vector<Part>{{1, 1, 1}, {1, 2, 2}, {1, 3, 3}}));
}

rc::Gen<std::vector<TestRow>> any_rows() {
  const auto row = rc::gen::map(
      rc::gen::tuple(rc::gen::arbitrary<bool>(), rc::gen::inRange(0, 4), rc::gen::inRange(0, 30)),
      [](const auto& made) {
        const auto& [is_inserted, id, size] = made;
        if (size == 29) return TestRow{is_inserted, ""};
        const std::string filling(static_cast<std::size_t>(size), 'x');
        return TestRow{is_inserted, fmt::format(R"({{"id": {}, "f": "{}"}})", id, filling)};
      });
  return rc::gen::container<std::vector<TestRow>>(row);
}

TEST(DeltaCutterProperty, PartsAreTheSameWhereverReadingIsResumed) {
  const bool holds = rc::check([] {
    const auto rows = *any_rows();
    const auto max_rows = *rc::gen::inRange<std::int64_t>(1, 9);
    const auto max_bytes = *rc::gen::inRange<std::size_t>(1, 200);
    const auto whole = cut(rows, max_rows, max_bytes);
    std::vector<Part> rest = whole;
    while (!rest.empty()) {
      const auto done = static_cast<std::size_t>(rest.front().last);
      rest.erase(rest.begin());
      RC_ASSERT(cut(rows, max_rows, max_bytes, done) == rest);
    }
  });
  EXPECT_TRUE(holds);
}

TEST(DeltaCutterProperty, EveryRowIsInOnePartAndNoPartIsLongerThanOneRowTooMany) {
  const bool holds = rc::check([] {
    const auto rows = *any_rows();
    const auto max_rows = *rc::gen::inRange<std::int64_t>(1, 9);
    std::int64_t next = 1;
    int number = 0;
    for (const Part& part : cut(rows, max_rows)) {
      RC_ASSERT(part.first == next);
      RC_ASSERT(part.last - part.first + 1 <= max_rows + 1);
      RC_ASSERT(part.number >= number);
      next = part.last + 1;
      number = part.number;
    }
    RC_ASSERT(next == static_cast<std::int64_t>(rows.size()) + 1);
  });
  EXPECT_TRUE(holds);
}

}  // namespace
}  // namespace relay::outbox
