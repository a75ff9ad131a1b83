#include "outbox/snapshot_progress.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace relay::outbox {
namespace {

using Table = std::map<std::string, int>;

/// A change of one key, or a row of a page.
struct Change {
  std::string key;
  std::optional<int> value;  // none: the row is deleted
};

void put(Table& table, const Change& change) {
  if (change.value) {
    table[change.key] = *change.value;
  } else {
    table.erase(change.key);
  }
}

/// A table, a relay that delivers its rows and changes, and a consumer that applies what comes.
class World {
 public:
  void write(int key, std::optional<int> value) {
    const Change change{fmt::format("k{:02}", key), value};
    if (!value && !table_.contains(change.key)) return;
    put(table_, change);
    changes_.push_back(change);
  }
  void begin() {
    stored_.moment.id = now();
    progress_ = SnapshotProgress(stored_);
  }

  /// Hands out the next changes, and a page behind them.
  void step(std::size_t page_rows) {
    const SnapshotState from = progress_.now();
    if (from.done) return;
    std::vector<Change> messages;
    for (std::int64_t id = from.moment.id; id < now(); ++id) {
      const Change& change = changes_[static_cast<std::size_t>(id)];
      if (from.all || change.key <= progress_.bound()) messages.push_back(change);
    }
    SnapshotProgress::Page page;
    page.is_last = true;
    for (auto row = table_.upper_bound(from.after); row != table_.end(); ++row) {
      if (!progress_.until().empty() && row->first > progress_.until()) break;
      if (static_cast<std::size_t>(page.rows) == page_rows) {
        page.is_last = false;
        break;
      }
      messages.push_back({row->first, row->second});
      page.last_key = row->first;
      ++page.rows;
    }
    if (const auto ahead = progress_.to_store_ahead(page); !ahead.empty()) stored_.ahead = ahead;
    SnapshotMoment moment;
    moment.id = now();
    progress_.take_changes(moment);
    progress_.take_page(page);
    if (!messages.empty()) under_way_.push_back({progress_.hand_out(), messages});
  }

  /// The consumer takes so many messages; what is settled is stored, or not yet.
  void deliver(std::size_t messages, bool store) {
    while (messages > 0 && !under_way_.empty()) {
      auto& [step, rest] = under_way_.front();
      put(copy_, rest.front());
      rest.erase(rest.begin());
      --messages;
      if (!rest.empty()) continue;
      if (store) settle(step);
      under_way_.pop_front();
    }
  }
  void kill() {
    under_way_.clear();
    progress_ = SnapshotProgress(stored_);
  }
  bool is_done() const { return progress_.now().done; }

  /// Whether the copy equals the table once everything has come.
  bool ends_equal() {
    while (!is_done()) step(3);
    deliver(100000, true);
    for (std::int64_t id = progress_.now().moment.id; id < now(); ++id) {
      put(copy_, changes_[static_cast<std::size_t>(id)]);
    }
    return copy_ == table_;
  }

 private:
  std::int64_t now() const { return static_cast<std::int64_t>(changes_.size()); }
  void settle(std::int64_t step) {
    if (const auto state = progress_.settled(step)) {
      // As the database does: the key ahead stays.
      const std::string ahead = stored_.ahead;
      stored_ = *state;
      stored_.ahead = ahead;
    }
    progress_.stored(step);
  }

  Table table_;
  Table copy_;
  std::vector<Change> changes_;
  SnapshotState stored_;
  SnapshotProgress progress_{{}};
  std::deque<std::pair<std::int64_t, std::vector<Change>>> under_way_;
};

/// Less than `below`, in small cases too.
int pick(int below) {
  return *rc::gen::resize(100, rc::gen::inRange(0, below));
}

TEST(SnapshotProgress, TheCopyEqualsTheTableWhereverTheRelayIsKilled) {
  rc::check([] {
    constexpr int kKeys = 12;
    World world;
    const auto write = [&world] {
      const int key = pick(kKeys);
      world.write(key, pick(3) == 0 ? std::nullopt : std::optional(pick(1000)));
    };
    for (int i = pick(30); i > 0; --i) write();
    world.begin();
    for (int i = pick(100); i > 0; --i) {
      switch (pick(8)) {
        case 0:
          world.kill();
          break;
        case 1:
        case 2:
          world.step(static_cast<std::size_t>(1 + pick(4)));
          break;
        case 3:
        case 4:
          world.deliver(static_cast<std::size_t>(1 + pick(8)), pick(2) == 0);
          break;
        default:
          write();
      }
    }
    RC_ASSERT(world.ends_equal());
  });
}

SnapshotProgress::Page page(std::string last_key, std::int64_t rows, bool is_last) {
  return {std::move(last_key), rows, is_last};
}

TEST(SnapshotProgress, BeforeTheFirstPageNoChangeIsDelivered) {
  SnapshotProgress progress({});
  EXPECT_EQ(progress.bound(), "");
  EXPECT_EQ(progress.until(), "");
  EXPECT_EQ(progress.to_store_ahead(page("b", 2, false)), "b");
  progress.take_page(page("b", 2, false));
  EXPECT_EQ(progress.bound(), "b");
  EXPECT_EQ(progress.now().after, "b");
}

TEST(SnapshotProgress, WhatMayHaveBeenHandedOutIsReadAgainAndItsChangesAreDelivered) {
  SnapshotState stored;
  stored.after = "b";
  stored.ahead = "f";
  SnapshotProgress progress(stored);
  EXPECT_EQ(progress.bound(), "f");
  EXPECT_EQ(progress.until(), "f");
  EXPECT_EQ(progress.to_store_ahead(page("d", 2, false)), "");
  progress.take_page(page("d", 2, false));
  EXPECT_EQ(progress.bound(), "f");
  // All up to there are gone: that is not the end of the table.
  progress.take_page(page("", 0, true));
  EXPECT_EQ(progress.now().after, "f");
  EXPECT_FALSE(progress.now().done);
  EXPECT_EQ(progress.until(), "");
  progress.take_page(page("", 0, true));
  EXPECT_TRUE(progress.now().done);
}

TEST(SnapshotProgress, AStepIsStoredWhenAllOfItIsSettled) {
  SnapshotProgress progress({});
  progress.take_page(page("b", 2, false));
  const auto first = progress.hand_out();
  progress.take_page(page("d", 2, false));
  const auto second = progress.hand_out();
  EXPECT_FALSE(progress.settled(first - 1));
  EXPECT_EQ(progress.settled(first)->after, "b");
  EXPECT_EQ(progress.settled(second)->after, "d");
  progress.stored(first);
  EXPECT_FALSE(progress.is_settled());
  progress.stored(second);
  EXPECT_TRUE(progress.is_settled());
}

}  // namespace
}  // namespace relay::outbox
