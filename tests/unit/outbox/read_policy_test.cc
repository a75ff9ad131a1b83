#include "outbox/read_policy.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "outbox/database_model.h"

namespace relay::outbox {
namespace {

using model::Database;
using model::Ids;
using model::session;
using std::chrono::milliseconds;
using Look = ReadPolicy::Look;
using Step = ReadPolicy::Step;
using Verdict = ReadPolicy::Verdict;

constexpr ReadLimits kLimits{100, 1u << 20};
constexpr std::size_t kRowBytes = 100;

ReadPolicy::Time at(int ms) {
  return ReadPolicy::Time(std::chrono::hours(1) + milliseconds(ms));
}

ReadPolicy policy_behind(std::int64_t id, const char* skipped = "{}") {
  return {id, *state::SkipSet::parse(skipped)};
}

/// One page of a statement that asked for `asked` rows and gave these.
ReadPolicy::PageEnd read(ReadPolicy& policy, const Ids& rows, std::int64_t asked,
                         std::int64_t announced = 0, int now = 0) {
  policy.begin_statement(kLimits, 1);
  policy.begin_page(asked);
  for (const std::int64_t id : rows) {
    if (policy.take(id, kRowBytes, false) == Verdict::leave) break;
  }
  return policy.conclude(kLimits, announced, at(now));
}

TEST(ReadPolicy, FetchesFirstAndWaitsForNewsAtTheEnd) {
  ReadPolicy policy = policy_behind(7);
  EXPECT_EQ(policy.next(), Step::fetch);
  EXPECT_EQ(policy.begin_statement(kLimits, 1).beyond, 7);
  EXPECT_FALSE(read(policy, {8, 9}, 100).read_ahead);
  EXPECT_EQ(policy.frontier(), 9);
  EXPECT_EQ(policy.next(), Step::wait_for_news);
  EXPECT_FALSE(policy.expects_rows(9));
  EXPECT_TRUE(policy.expects_rows(10));
}

/// The same for a statement that looked for rows up to an id only.
ReadPolicy::PageEnd read_until(ReadPolicy& policy, const Ids& rows, std::int64_t until,
                               std::int64_t announced) {
  policy.begin_statement(kLimits, 1);
  policy.begin_page(100);
  for (const std::int64_t id : rows) {
    if (policy.take(id, kRowBytes, false) == Verdict::leave) break;
  }
  policy.reached(until);
  return policy.conclude(kLimits, announced, at(0));
}

TEST(ReadPolicy, AStatementPassesNoIdThatItDidNotLookFor) {
  ReadPolicy policy = policy_behind(0);
  read_until(policy, {}, 500, 1000);
  EXPECT_EQ(policy.frontier(), 0);  // nothing is decided yet
  EXPECT_EQ(policy.next(), Step::wait_for_writers);
  policy.probed({1000, 0}, at(1));
  EXPECT_EQ(policy.looked({}), Look::fetch);
  EXPECT_TRUE(read_until(policy, {}, 500, 1000).read_ahead);
  EXPECT_EQ(policy.frontier(), 500);
  EXPECT_EQ(policy.next(), Step::fetch);
  read_until(policy, {700}, 800, 1000);
  EXPECT_EQ(policy.frontier(), 800);
  EXPECT_EQ(policy.next(), Step::fetch);
  read_until(policy, {}, INT64_MAX, 1000);
  EXPECT_EQ(policy.frontier(), 1000);
  EXPECT_EQ(policy.next(), Step::wait_for_news);
}

TEST(ReadPolicy, AStatementThatLookedFurtherThanIsDecidedWaitsForWriters) {
  ReadPolicy policy = policy_behind(0);
  read_until(policy, {1, 2}, 500, 300);
  EXPECT_EQ(policy.frontier(), 2);
  EXPECT_EQ(policy.next(), Step::wait_for_writers);
}

TEST(ReadPolicy, ReadsAheadWhileAllRowsThatWereAskedForCome) {
  ReadPolicy policy = policy_behind(0);
  const auto end = read(policy, {1, 2}, 2);
  EXPECT_TRUE(end.read_ahead);
  EXPECT_FALSE(end.goes_on);
  EXPECT_EQ(policy.next(), Step::fetch);
}

TEST(ReadPolicy, AFullBatchLeavesTheStatementForTheNextOne) {
  ReadPolicy policy = policy_behind(0);
  policy.begin_statement(kLimits, 8);
  policy.begin_page(8);
  policy.take(1, kRowBytes, false);
  EXPECT_FALSE(policy.page_is_full(1, {2, 1000}));
  policy.take(2, kRowBytes, false);
  EXPECT_TRUE(policy.page_is_full(2, {2, 1000}));
  const auto end = policy.conclude(kLimits, 8, at(0));
  EXPECT_TRUE(end.goes_on);
  EXPECT_FALSE(end.read_ahead);
}

TEST(ReadPolicy, ABatchIsFullByItsBytesToo) {
  ReadPolicy policy = policy_behind(0);
  policy.begin_statement(kLimits, 1);
  policy.begin_page(8);
  policy.take(1, kRowBytes, false);
  EXPECT_TRUE(policy.page_is_full(1, {100, kRowBytes}));
}

TEST(ReadPolicy, AtAnOpenGapItWaitsForTheWritersAndThenPasses) {
  ReadPolicy policy = policy_behind(0);
  EXPECT_FALSE(read(policy, {1, 3}, 100, 3).gap_passed);
  EXPECT_EQ(policy.frontier(), 1);
  EXPECT_EQ(policy.next(), Step::wait_for_writers);
  EXPECT_FALSE(policy.probed({3, 3}, at(1)));
  EXPECT_EQ(policy.looked(std::vector{session("writer")}), Look::still_waiting);
  EXPECT_FALSE(policy.probed({3, 3}, at(2)));
  EXPECT_EQ(policy.looked({}), Look::fetch);
  const auto end = read(policy, {3}, 100, 3);
  EXPECT_TRUE(end.gap_passed);
  EXPECT_EQ(end.began_at, 1);
  EXPECT_EQ(policy.frontier(), 3);
}

TEST(ReadPolicy, AGapThatWasFilledIsReadWithoutALook) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1, 3}, 100, 3);
  EXPECT_TRUE(policy.probed({3, 2}, at(1)));
}

TEST(ReadPolicy, AFullPageThatPassedAGapLeavesItsStatement) {
  ReadPolicy policy = policy_behind(0);
  policy.probed({9, 0}, at(0));
  policy.looked({});
  policy.begin_statement(kLimits, 8);
  policy.begin_page(8);
  EXPECT_EQ(policy.take(2, kRowBytes, false), Verdict::hand_out);
  EXPECT_TRUE(policy.page_is_full(1, {1, 1000}));
  const auto end = policy.conclude({1, 1000}, 9, at(0));
  EXPECT_TRUE(end.leave);
  EXPECT_TRUE(end.gap_passed);
  EXPECT_FALSE(end.goes_on);
  EXPECT_TRUE(end.read_ahead);
  EXPECT_EQ(policy.begin_statement(kLimits, 1).rows, 1);
}

TEST(ReadPolicy, WaitsForAnIdThatWasDrawnAndIsNotToBeSeen) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1}, 100, 2);
  EXPECT_EQ(policy.next(), Step::wait_for_writers);
  // Most writers commit soon: it first fetches again.
  const auto first = policy.next_round(2, at(0));
  EXPECT_EQ(first.pause, milliseconds(1));
  EXPECT_TRUE(first.fetch);
  EXPECT_FALSE(policy.next_round(2, at(0)).fetch);
}

TEST(ReadPolicy, PausesLongerTheLongerItWaits) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1}, 100, 2);
  EXPECT_EQ(policy.next_round(2, at(4)).pause, milliseconds(1));
  EXPECT_EQ(policy.next_round(2, at(40)).pause, milliseconds(5));
  EXPECT_EQ(policy.next_round(2, at(4000)).pause, milliseconds(10));
}

TEST(ReadPolicy, AnOldGapIsLookedAtAtOnce) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1, 3}, 100, 103);
  const auto first = policy.next_round(103, at(0));
  EXPECT_EQ(first.pause, milliseconds(0));
  EXPECT_FALSE(first.fetch);
  EXPECT_EQ(policy.next_round(103, at(0)).pause, milliseconds(1));
}

TEST(ReadPolicy, WhereRowsCameMeanwhileTheWaitBeginsAnew) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1, 3}, 100, 5, 0);
  read(policy, {2, 3, 5}, 100, 5, 200);
  EXPECT_EQ(policy.next(), Step::wait_for_writers);
  EXPECT_FALSE(policy.is_writer_due(at(299)));
  EXPECT_TRUE(policy.is_writer_due(at(300)));
  EXPECT_FALSE(policy.is_writer_due(at(301)));
  EXPECT_TRUE(policy.is_writer_due(at(800)));
}

TEST(ReadPolicy, WhereNothingWasDrawnThereIsNothingToWaitFor) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1}, 100, 2);
  // The sequence was set back.
  EXPECT_FALSE(policy.probed({1, 0}, at(1)));
  EXPECT_EQ(policy.looked({}), Look::nothing_to_wait_for);
  EXPECT_EQ(policy.next(), Step::wait_for_news);
}

TEST(ReadPolicy, IsProbedOnceASecondWithoutNews) {
  ReadPolicy policy = policy_behind(0);
  read(policy, {1}, 100, 0, 0);
  EXPECT_EQ(policy.next_probe(), at(1000));
  EXPECT_FALSE(policy.probed({1, 0}, at(1000)));
  EXPECT_EQ(policy.next_probe(), at(2000));
  EXPECT_TRUE(policy.probed({2, 0}, at(2000)));
  EXPECT_TRUE(policy.expects_rows(0));
}

TEST(ReadPolicy, SkippedRowsAreNotHandedOutAndRunsOfThemNotRead) {
  ReadPolicy policy = policy_behind(0, "{[1,4),[6,7)}");
  EXPECT_EQ(policy.begin_statement(kLimits, 1).beyond, 3);
  EXPECT_EQ(policy.skipped_to(), 3);
  policy.begin_page(100);
  EXPECT_EQ(policy.take(4, kRowBytes, false), Verdict::hand_out);
  EXPECT_EQ(policy.take(5, kRowBytes, false), Verdict::hand_out);
  EXPECT_EQ(policy.take(6, kRowBytes, false), Verdict::skip);
  EXPECT_EQ(policy.skipped_to(), 6);
}

TEST(ReadPolicy, AfterARestartSkippedRowsAreStillSkipped) {
  ReadPolicy policy = policy_behind(0, "{[2,3)}");
  read(policy, {1, 2, 3}, 100);
  policy.restart(0);
  EXPECT_EQ(policy.next(), Step::fetch);
  EXPECT_EQ(policy.frontier(), 0);
  policy.begin_statement(kLimits, 1);
  policy.begin_page(100);
  EXPECT_EQ(policy.take(1, kRowBytes, false), Verdict::hand_out);
  EXPECT_EQ(policy.take(2, kRowBytes, false), Verdict::skip);
}

TEST(ReadPolicy, BehindAClaimCheckFewRowsAreAskedForAndMoreAndMoreLater) {
  ReadPolicy policy = policy_behind(0);
  policy.begin_statement(kLimits, 1);
  policy.begin_page(100);
  EXPECT_EQ(policy.take(1, kRowBytes, true), Verdict::claim_check);
  EXPECT_FALSE(policy.conclude(kLimits, 100, at(0)).read_ahead);
  EXPECT_EQ(policy.next(), Step::fetch);
  EXPECT_EQ(policy.begin_statement(kLimits, 8).rows, 8);
  read(policy, {2, 3, 4, 5, 6, 7, 8, 9}, 8);
  EXPECT_EQ(policy.begin_statement(kLimits, 8).rows, 32);
}

TEST(ReadPolicy, FewRowsThatAreLeftAreTakenAndManyCancelled) {
  ReadPolicy policy = policy_behind(0);
  policy.begin_statement(kLimits, 1);
  policy.begin_page(100000);
  policy.take(1, kRowBytes, false);
  EXPECT_EQ(policy.worth_taking(0), 0U);
  // The sweep knows how few there are.
  EXPECT_GT(policy.worth_taking(3), 2U);
}

// ---- against a model of the database, in every order that a generator finds

constexpr std::int64_t kSkippedTo = 12;

bool is_skipped(std::int64_t id) {
  return (id >= 2 && id < 5) || (id >= 9 && id <= kSkippedTo);
}

/// Does what the policy says, one action a step: other transactions go on between two of them.
class Reader {
 public:
  explicit Reader(const Database& database) : database_(database) {}

  void step(std::uint32_t choice) {
    now_ += milliseconds(1 + choice % 7);
    if (choice % 5 == 0) announced_ = database_.sequence();
    if (choice % 31 == 0) rows_.reset();  // another pipeline needed the connection
    if (probed_) {
      fetch_ = policy_.looked(database_.holders()) == Look::fetch;
      probed_ = false;
    } else if (fetch_ || policy_.next() == Step::fetch) {
      rows_ ? read_page(choice / 31) : send(choice / 31);
    } else if (policy_.next() == Step::wait_for_news) {
      fetch_ = policy_.expects_rows(announced_);
      if (!fetch_ && now_ >= policy_.next_probe()) fetch_ = probe();
    } else {
      const auto round = policy_.next_round(announced_, now_);
      now_ += round.pause;
      fetch_ = round.fetch || probe();
      probed_ = !fetch_;
    }
  }

  const Ids& delivered() const { return delivered_; }
  std::int64_t frontier() const { return policy_.frontier(); }

 private:
  bool probe() {
    const Ids first = database_.beyond(policy_.frontier(), 1);
    return policy_.probed({database_.sequence(), first.empty() ? 0 : first.front()}, now_);
  }

  void send(std::uint32_t choice) {
    limits_ = {1 + choice % 4, 1 + choice % 1000};
    const auto query = policy_.begin_statement(limits_, 1 + choice % 3);
    left_ = query.rows;
    rows_ = database_.beyond(query.beyond, static_cast<std::size_t>(query.rows));
  }

  void read_page(std::uint32_t choice) {
    fetch_ = false;
    policy_.begin_page(left_);
    Ids batch;
    std::size_t came = 0;
    for (bool more = true; more && came < rows_->size();) {
      const std::int64_t id = (*rows_)[came++];
      --left_;
      more = take(id, batch) && !policy_.page_is_full(batch.size(), limits_);
    }
    const auto end = policy_.conclude(limits_, announced_, now_);
    rows_->erase(rows_->begin(), rows_->begin() + static_cast<std::ptrdiff_t>(came));
    if (choice % 19 == 0) {  // the connection broke
      rows_.reset();
      policy_.restart(delivered_.empty() ? 0 : delivered_.back());
      return;
    }
    if (!end.goes_on) rows_.reset();
    delivered_.insert(delivered_.end(), batch.begin(), batch.end());
    if (!delivered_.empty()) policy_.handed_out(delivered_.back());
    if (end.read_ahead) send(choice);
  }

  bool take(std::int64_t id, Ids& batch) {
    const auto verdict = policy_.take(id, kRowBytes, id % 11 == 0);
    const bool handed_out = verdict == Verdict::hand_out || verdict == Verdict::claim_check;
    if (handed_out) batch.push_back(id);
    return verdict == Verdict::hand_out || verdict == Verdict::skip;
  }

  const Database& database_;
  ReadPolicy policy_ = policy_behind(0, "{[2,5),[9,13)}");
  ReadPolicy::Time now_ = at(0);
  std::int64_t announced_ = 0;
  ReadLimits limits_;
  std::optional<Ids> rows_;  // of the statement that is under way
  std::int64_t left_ = 0;
  bool fetch_ = false;
  bool probed_ = false;  // to be followed by a look
  Ids delivered_;
};

constexpr std::size_t kSteps = 500;

TEST(ReadPolicyProperty, EveryCommittedRowIsHandedOutOnceAndInOrderWhateverTheInterleaving) {
  const auto property = [] {
    const auto choices = rc::gen::inRange<std::uint32_t>(0, 1U << 24);
    const auto schedule = *rc::gen::container<std::vector<std::uint32_t>>(kSteps, choices);
    Database database;
    Reader reader(database);
    for (const std::uint32_t choice : schedule) {
      const std::uint32_t rest = choice / 8;
      switch (choice % 8) {
        case 0:
        case 1:
        case 2:
          reader.step(rest);
          break;
        case 3:
          database.step_prepared(rest);
          break;
        case 4:
          if (rest % 16 == 0) database.crash();
          break;
        default:
          database.step(rest);
      }
    }
    database.end();
    for (std::uint32_t i = 0; !database.ended(); ++i) {
      database.step(i * 7 + i);
      database.step_prepared(i * 13);
      if (i % 3 == 0) reader.step(i);
      RC_ASSERT(i < 10000U);
    }
    for (std::uint32_t i = 1; reader.frontier() < database.sequence(); ++i) {
      reader.step(i);
      RC_ASSERT(i < 20000U);
    }
    Ids expected = database.committed();
    std::erase_if(expected, is_skipped);
    RC_ASSERT(reader.delivered() == expected);
  };
  constexpr int kHundreds = 10;
  for (int i = 0; i < kHundreds; ++i) ASSERT_TRUE(rc::check(property));
}

}  // namespace
}  // namespace relay::outbox
