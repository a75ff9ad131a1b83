#include "outbox/horizon.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "outbox/database_model.h"

namespace relay::outbox {
namespace {

using model::Database;
using model::Ids;
using model::prepared;
using model::session;

/// What one statement that gives these rows lets through.
Ids read(Horizon& horizon, const Ids& rows, bool all = true) {
  Ids passed;
  horizon.begin_read();
  for (const std::int64_t id : rows) {
    if (!horizon.pass(id)) return passed;
    passed.push_back(id);
  }
  if (all) horizon.end_read();
  return passed;
}

TEST(Horizon, PassesARunWithoutAGapWithoutAnyLook) {
  Horizon horizon(7);
  EXPECT_EQ(read(horizon, {8, 9, 10}), (Ids{8, 9, 10}));
  EXPECT_EQ(horizon.frontier(), 10);
}

TEST(Horizon, StopsAtAGap) {
  Horizon horizon;
  EXPECT_EQ(read(horizon, {1, 2, 4, 5}), (Ids{1, 2}));
  EXPECT_EQ(horizon.frontier(), 2);
}

TEST(Horizon, PassesAGapOnceNoWriterIsLeftThatCouldFillIt) {
  Horizon horizon;
  read(horizon, {1, 3});
  horizon.observe(3, std::vector{session("2/7")});
  EXPECT_TRUE(horizon.waiting());
  EXPECT_EQ(read(horizon, {3}), Ids{});
  horizon.observe(9, std::vector{session("2/8")});
  EXPECT_EQ(horizon.settled(), 3);
  EXPECT_EQ(read(horizon, {3}), Ids{3});
}

TEST(Horizon, ALookCountsOnlyForStatementsThatBeginAfterIt) {
  Horizon horizon;
  horizon.begin_read();
  horizon.observe(5, {});
  EXPECT_FALSE(horizon.pass(3));
  horizon.begin_read();
  EXPECT_TRUE(horizon.pass(3));
}

TEST(Horizon, OneLookSettlesAllGapsUpToItsSequence) {
  Horizon horizon;
  horizon.observe(9, {});
  EXPECT_EQ(read(horizon, {2, 5, 9, 11}), (Ids{2, 5, 9}));
}

TEST(Horizon, IdsThatWereRolledBackAtTheTailArePassed) {
  Horizon horizon(4);
  horizon.observe(8, {});
  EXPECT_TRUE(horizon.can_advance(0));
  read(horizon, {});
  EXPECT_EQ(horizon.frontier(), 8);
  EXPECT_FALSE(horizon.can_advance(0));
}

TEST(Horizon, AStatementThatWasCutDoesNotMoveBeyondItsLastRow) {
  Horizon horizon;
  horizon.observe(100, {});
  read(horizon, {3, 5}, false);
  EXPECT_EQ(horizon.frontier(), 5);
}

TEST(Horizon, WritersThatCameLaterAreNotWaitedFor) {
  Horizon horizon;
  read(horizon, {2});
  horizon.observe(2, std::vector{session("a")});
  horizon.observe(50, std::vector{session("a"), session("b")});
  horizon.observe(60, std::vector{session("b")});
  EXPECT_EQ(horizon.settled(), 2);
  EXPECT_TRUE(horizon.can_advance(2));
}

TEST(Horizon, AGapWaitsOnlyForThoseWhoWereThereWhenItWasFirstSeen) {
  Horizon horizon;
  horizon.observe(10, std::vector{session("long")});
  horizon.observe(20, std::vector{session("long"), session("rolled back")});
  horizon.observe(30, std::vector{session("long"), session("late")});
  horizon.observe(40, std::vector{session("late")});
  EXPECT_EQ(horizon.settled(), 20);
}

TEST(Horizon, ASessionThatPreparesItsTransactionIsStillWaitedFor) {
  Horizon horizon;
  horizon.observe(2, std::vector{session("3/45")});
  horizon.observe(2, std::vector{prepared("737")});
  EXPECT_EQ(horizon.settled(), 0);
  horizon.observe(2, {});
  EXPECT_EQ(horizon.settled(), 2);
}

TEST(Horizon, TransactionsPreparedLaterDoNotStallForEver) {
  Horizon horizon;
  horizon.observe(2, std::vector{session("s")});
  horizon.observe(3, std::vector{prepared("1"), prepared("2")});
  for (int i = 3; i < 100; ++i) {
    horizon.observe(i, std::vector{prepared(std::to_string(i))});
  }
  EXPECT_GE(horizon.settled(), 2);
}

TEST(Horizon, ManyOpenLooksLoseNothing) {
  Horizon horizon;
  for (int i = 1; i <= 1000; ++i) horizon.observe(i, std::vector{session("long")});
  EXPECT_EQ(horizon.settled(), 0);
  horizon.observe(1001, {});
  EXPECT_EQ(horizon.settled(), 1001);
}

// ---- against a model of the database, in every order that a generator finds

/// A reader that takes the rows of a statement later, and looks in two statements, in between too.
class Reader {
 public:
  explicit Reader(const Database& database) : database_(database) {}

  void step(std::uint32_t choice) {
    if (choice % 2 == 0) {
      rows_ ? take() : send(1 + choice % 5);
    } else if (look_) {
      horizon_.observe(*look_, database_.holders());
      look_.reset();
    } else {
      look_ = database_.sequence();
    }
  }

  const Ids& delivered() const { return delivered_; }
  std::int64_t frontier() const { return horizon_.frontier(); }

 private:
  void send(std::size_t limit) {
    horizon_.begin_read();
    limit_ = limit;
    rows_ = database_.beyond(horizon_.frontier(), limit_);
  }
  void take() {
    bool passed = true;
    for (const std::int64_t id : *rows_) {
      passed = horizon_.pass(id);
      if (!passed) break;
      delivered_.push_back(id);
    }
    if (passed && rows_->size() < limit_) horizon_.end_read();
    rows_.reset();
  }

  const Database& database_;
  Horizon horizon_;
  Ids delivered_;
  std::size_t limit_ = 0;
  std::optional<Ids> rows_;
  std::optional<std::int64_t> look_;
};

constexpr std::size_t kSteps = 500;

TEST(HorizonProperty, EveryCommittedRowIsDeliveredOnceAndInOrderWhateverTheInterleaving) {
  const auto property = [] {
    const auto choices = rc::gen::inRange<std::uint32_t>(0, 1U << 20);
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
    for (std::uint32_t i = 0; reader.frontier() < database.sequence(); ++i) {
      reader.step(i);
      RC_ASSERT(i < 10000U);
    }
    RC_ASSERT(reader.delivered() == database.committed());
  };
  constexpr int kHundreds = 20;
  for (int i = 0; i < kHundreds; ++i) ASSERT_TRUE(rc::check(property));
}

TEST(Horizon, JumpsOverIdsThatNeedNotBeReadAndNeverBack) {
  Horizon horizon(10);
  horizon.jump_to(20);
  horizon.begin_read();
  EXPECT_TRUE(horizon.pass(21));
  EXPECT_FALSE(horizon.pass(23));
  horizon.jump_to(5);
  EXPECT_EQ(horizon.frontier(), 21);
}

}  // namespace
}  // namespace relay::outbox
