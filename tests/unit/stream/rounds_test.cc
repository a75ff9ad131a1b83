#include "stream/rounds.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace relay::stream {
namespace {

using Place = Rounds::Place;

TEST(Rounds, ARoundIsSettledOnceItHasEndedAndItsEventsAre) {
  Rounds rounds({"a", "", -1});
  rounds.begin("b");
  EXPECT_EQ(rounds.hand_out(7), 1);
  EXPECT_EQ(rounds.hand_out(9), 2);
  rounds.settle(1);
  EXPECT_EQ(rounds.settled(), (Place{"a", "b", 7}));
  rounds.end();
  rounds.settle(2);
  EXPECT_EQ(rounds.settled(), (Place{"b", "", -1}));
}

TEST(Rounds, TheNextRoundMayBeReadBeforeTheFirstIsSettled) {
  Rounds rounds({"a", "", -1});
  rounds.begin("b");
  rounds.hand_out(9);
  rounds.end();
  rounds.begin("c");
  EXPECT_EQ(rounds.behind(), "b");
  rounds.hand_out(3);
  EXPECT_EQ(rounds.settled(), (Place{"a", "b", -1}));
  rounds.settle(1);
  EXPECT_EQ(rounds.settled(), (Place{"b", "c", -1}));
  rounds.settle(2);
  EXPECT_EQ(rounds.settled(), (Place{"b", "c", 3}));
  EXPECT_EQ(rounds.underway(), 0);
}

TEST(Rounds, ARoundWithoutEventsIsSettledAtItsEnd) {
  Rounds rounds({"a", "", -1});
  rounds.begin("b");
  rounds.end();
  EXPECT_EQ(rounds.settled(), (Place{"b", "", -1}));
}

TEST(Rounds, AStartGoesOnInTheRoundThatWasUnderWay) {
  Rounds rounds({"a", "b", 7});
  EXPECT_TRUE(rounds.reading());
  EXPECT_EQ(rounds.behind(), "a");
  EXPECT_EQ(rounds.next(), "b");
  EXPECT_EQ(rounds.seq(), 7);
  rounds.end();
  EXPECT_EQ(rounds.settled(), (Place{"b", "", -1}));
}

/// Events by the snapshot that sees them first, which is a number here.
using Table = std::map<int, std::vector<std::int64_t>>;

TEST(Rounds, EachEventIsHandedOutAndThoseSettledOnceOnly) {
  for (unsigned seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    Table table;
    int present = 1;
    std::int64_t last_seq = 0;
    std::map<std::int64_t, int> settled;
    Rounds rounds({"0", "", -1});
    std::vector<std::int64_t> handed_out;
    std::vector<std::int64_t> waiting;
    std::size_t settled_here = 0;
    const auto run_out = [&](bool whole) {
      if (!rounds.reading()) rounds.begin(std::to_string(present));
      waiting.clear();
      for (const auto& [seen, events] : table) {
        if (seen <= std::stoi(rounds.behind()) || seen > std::stoi(rounds.next())) continue;
        for (const auto seq : events) {
          if (seq > rounds.seq()) waiting.push_back(seq);
        }
      }
      std::sort(waiting.begin(), waiting.end());
      for (const auto seq : waiting) {
        if (!whole && random() % 4 == 0) return;
        rounds.hand_out(seq);
        handed_out.push_back(seq);
      }
      rounds.end();
    };
    const auto settle = [&](std::size_t count) {
      for (; count > 0 && settled_here < handed_out.size(); --count) {
        ++settled[handed_out[settled_here++]];
      }
      rounds.settle(static_cast<std::int64_t>(settled_here));
    };
    for (int step = 0; step < 60; ++step) {
      switch (random() % 5) {
        case 0:
          table[++present].push_back(++last_seq);
          break;
        case 1:  // a transaction that drew its numbers earlier
          last_seq += 2;
          table[present + 1].push_back(last_seq);
          table[present + 2].push_back(last_seq - 1);
          present += 2;
          break;
        case 2:
          run_out(false);
          break;
        case 3:
          settle(random() % 3);
          break;
        default:
          if (random() % 3 == 0) {  // a start, with what was stored
            const Place place = rounds.settled();
            rounds = Rounds(place);
            handed_out.clear();
            settled_here = 0;
          }
      }
    }
    run_out(true);
    run_out(true);
    settle(handed_out.size());
    for (const auto& [seen, events] : table) {
      for (const auto seq : events) ASSERT_EQ(settled[seq], 1) << "seed " << seed;
    }
    ASSERT_EQ(rounds.settled(), (Place{std::to_string(present), "", -1}));
  }
}

}  // namespace
}  // namespace relay::stream
