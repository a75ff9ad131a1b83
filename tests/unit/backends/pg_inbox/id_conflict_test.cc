#include "backends/pg_inbox/id_conflict.h"

#include <gtest/gtest.h>

#include <set>

namespace relay::pg_inbox {
namespace {

Message message(std::string_view op, std::string_view key, std::string_view body) {
  Message made;
  made.id = "id";
  made.op = op;
  made.key = key;
  made.body = body;
  return made;
}

TEST(IdInConflict, IsTheSameForTheSameMessageOnly) {
  EXPECT_EQ(id_in_conflict(message("a", "b", "c")), id_in_conflict(message("a", "b", "c")));
  Message tombstone = message("a", "b", "");
  tombstone.tombstone = true;
  const std::set<std::string> ids = {id_in_conflict(message("a", "b", "c")),
                                     id_in_conflict(message("b", "a", "c")),
                                     id_in_conflict(message("ab", "", "c")),
                                     id_in_conflict(message("", "ab", "c")),
                                     id_in_conflict(message("a", "1:", "c")),
                                     id_in_conflict(message("a", "b", "")),
                                     id_in_conflict(tombstone)};
  EXPECT_EQ(ids.size(), 7u);
}

TEST(IdInConflict, IsTheIdWithSixteenDigits) {
  const std::string id = id_in_conflict(message("a", "b", "c"));
  EXPECT_EQ(id.substr(0, 3), "id~");
  EXPECT_EQ(id.substr(3).find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(id.size(), 3u + 16u);
}

const Found kSame{.id = "a", .found = true, .same = true};
const Found kOther{.id = "a", .found = true, .same = false};
Found with_trigger(Found found) {
  found.changes = true;
  return found;
}

using Fates = std::vector<Fate>;

TEST(Fates, ARowThatWasThereIsADuplicateOrInConflict) {
  EXPECT_EQ(fates(std::vector{kSame, kOther}, {}), (Fates{Fate::duplicate, Fate::conflict}));
}

TEST(Fates, OfMessagesWithOneIdTheFirstWasStored) {
  EXPECT_EQ(fates(std::vector{kSame, kOther, kSame}, {"a"}),
            (Fates{Fate::stored, Fate::conflict, Fate::duplicate}));
}

TEST(Fates, WithoutATriggerARowThatIsMissingWasThere) {
  const Found gone{.id = "a"};
  const Found hidden{.id = "a", .hides = true};
  EXPECT_EQ(fates(std::vector{gone, hidden}, {}), (Fates{Fate::gone, Fate::hidden}));
}

TEST(Fates, WithATriggerAComparisonProvesEqualityOnly) {
  EXPECT_EQ(fates(std::vector{with_trigger(kSame), with_trigger(kOther)}, {}),
            (Fates{Fate::duplicate, Fate::unclear}));
}

TEST(Fates, ARowThatATriggerDropsIsNotADuplicate) {
  const Found dropped = with_trigger({.id = "b"});
  EXPECT_EQ(fates(std::vector{with_trigger(kSame), dropped}, {"a"}),
            (Fates{Fate::stored, Fate::dropped}));
}

TEST(Fates, ATriggerMayDropTheFirstOfMessagesWithOneId) {
  const Found other = with_trigger(kOther);
  const Found same = with_trigger(kSame);
  EXPECT_EQ(fates(std::vector{other, same, same}, {"a"}),
            (Fates{Fate::unclear, Fate::stored, Fate::duplicate}));
  // One of them is stored with another payload: which one is not known.
  const Found dropped = with_trigger({.id = "b"});
  EXPECT_EQ(fates(std::vector{other, other, dropped}, {"a"}),
            (Fates{Fate::unclear, Fate::unclear, Fate::dropped}));
  EXPECT_EQ(fates(std::vector{other}, {"a"}), Fates{Fate::stored});
}

TEST(Fates, RowsThatATriggerRenamesAreStoredWhereNoneIsMissing) {
  const Found b = with_trigger({.id = "B"});
  const Found c = with_trigger({.id = "C"});
  EXPECT_EQ(fates(std::vector{with_trigger(kSame), b, c}, {"b", "c"}),
            (Fates{Fate::duplicate, Fate::stored, Fate::stored}));
  EXPECT_EQ(fates(std::vector{b, c}, {"c"}), (Fates{Fate::dropped, Fate::dropped}));
}

TEST(Fates, AnIdThatATriggerGaveToAnotherMessageProvesNothing) {
  // "A" was stored as "a"; "a" itself was not.
  const Found renamed = with_trigger({.id = "A"});
  EXPECT_EQ(fates(std::vector{renamed, with_trigger(kOther)}, {"a"}),
            (Fates{Fate::dropped, Fate::unclear}));
}

TEST(ConflictReports, OneLineAMinuteSaysHowManyThereWere) {
  ConflictReports reports;
  const SteadyClock::time_point start{};
  EXPECT_EQ(reports.note(start), 1u);
  EXPECT_EQ(reports.note(start + std::chrono::seconds(1)), 0u);
  EXPECT_EQ(reports.note(start + std::chrono::seconds(59)), 0u);
  EXPECT_EQ(reports.note(start + std::chrono::seconds(60)), 3u);
  EXPECT_EQ(reports.note(start + std::chrono::seconds(61)), 0u);
}

}  // namespace
}  // namespace relay::pg_inbox
