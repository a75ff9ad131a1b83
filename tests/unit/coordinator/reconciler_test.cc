#include "coordinator/reconciler.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace relay::coordinator {
namespace {

using Names = Reconciler::Names;
using Time = Reconciler::Time;
using std::chrono::seconds;

const Time kNow{std::chrono::hours(1)};

Reconciler::Group alone() {
  return {1, std::nullopt};
}

/// An instance that is alone, owns "a" and "b", and runs both.
class ReconcilerTest : public testing::Test {
 protected:
  ReconcilerTest() {
    want({{"a", "1"}, {"b", "1"}});
    reconciler_.took(reconciler_.balance(alone()).free_to_take);
    EXPECT_EQ(reconciler_.start(kNow, 0), (Names{"a", "b"}));
  }
  Reconciler::Changes want(std::vector<Reconciler::Wanted> wanted) {
    return reconciler_.follow(wanted);
  }
  Reconciler reconciler_;
};

TEST_F(ReconcilerTest, ARunningPipelineIsNotStartedAgain) {
  EXPECT_TRUE(reconciler_.start(kNow, 0).empty());
}

TEST_F(ReconcilerTest, AChangedPipelineIsStoppedOnceAndStartsUnderTheSameLease) {
  const auto changes = want({{"a", "2"}, {"b", "1"}});
  EXPECT_EQ(changes.changed, Names{"a"});
  EXPECT_EQ(changes.stop, Names{"a"});
  EXPECT_TRUE(want({{"a", "3"}, {"b", "1"}}).stop.empty());
  EXPECT_TRUE(reconciler_.start(kNow, 0).empty());
  reconciler_.ended("a");
  EXPECT_TRUE(reconciler_.leave().release.empty());
  EXPECT_EQ(reconciler_.start(kNow, 0), Names{"a"});
}

TEST_F(ReconcilerTest, TheLeaseOfARemovedPipelineIsGivenUpOnlyAfterItsEnd) {
  EXPECT_EQ(want({{"b", "1"}}).stop, Names{"a"});
  EXPECT_TRUE(reconciler_.leave().release.empty());
  reconciler_.ended("a");
  const auto leaving = reconciler_.leave();
  EXPECT_EQ(leaving.release, Names{"a"});
  EXPECT_EQ(leaving.removed, Names{"a"});
  EXPECT_EQ(leaving.forget, Names{"a"});
}

TEST_F(ReconcilerTest, APipelineThatComesBackWhileItStopsStartsUnderTheSameLease) {
  want({{"b", "1"}});
  EXPECT_TRUE(want({{"a", "1"}, {"b", "1"}}).added.empty());
  reconciler_.ended("a");
  EXPECT_TRUE(reconciler_.leave().release.empty());
  EXPECT_EQ(reconciler_.start(kNow, 0), Names{"a"});
}

TEST_F(ReconcilerTest, APipelineOfAnotherInstanceIsForgottenWithoutARelease) {
  want({{"a", "1"}, {"b", "1"}, {"c", "1"}});
  want({{"a", "1"}, {"b", "1"}});
  const auto leaving = reconciler_.leave();
  EXPECT_TRUE(leaving.release.empty());
  EXPECT_EQ(leaving.forget, Names{"c"});
}

TEST_F(ReconcilerTest, AnInstanceThatIsJoinedHandsOverTheLastOfItsPipelines) {
  const auto exchange = reconciler_.balance({2, std::nullopt});
  EXPECT_EQ(exchange.hand_over, Names{"b"});
  EXPECT_EQ(exchange.stop, Names{"b"});
  EXPECT_EQ(exchange.limit, 0u);
  EXPECT_TRUE(reconciler_.balance({2, std::nullopt}).hand_over.empty());
  reconciler_.ended("b");
  const auto leaving = reconciler_.leave();
  EXPECT_EQ(leaving.release, Names{"b"});
  EXPECT_TRUE(leaving.removed.empty());
  EXPECT_TRUE(leaving.forget.empty());
  EXPECT_TRUE(reconciler_.start(kNow, 0).empty());
}

TEST_F(ReconcilerTest, AFencedPipelineGivesUpItsLease) {
  reconciler_.broke_off("a", true, std::nullopt);
  EXPECT_EQ(reconciler_.at("a").run, Reconciler::Run::stopping);
  reconciler_.ended("a");
  EXPECT_EQ(reconciler_.leave().release, Names{"a"});
  EXPECT_EQ(reconciler_.balance(alone()).free_to_take, Names{"a"});
}

TEST_F(ReconcilerTest, ABrokenPipelineKeepsItsLeaseAndStartsAgainLater) {
  reconciler_.broke_off("a", false, kNow + seconds(5));
  reconciler_.ended("a");
  EXPECT_TRUE(reconciler_.leave().release.empty());
  EXPECT_TRUE(reconciler_.start(kNow + seconds(4), 0).empty());
  EXPECT_EQ(reconciler_.start(kNow + seconds(5), 0), Names{"a"});
}

TEST_F(ReconcilerTest, ANewConfigurationEndsTheWaitOfAPipelineThatCouldNotBeMade) {
  want({{"a", "1"}, {"b", "1"}, {"c", "1"}});
  reconciler_.took(Names{"c"});
  EXPECT_EQ(reconciler_.start(kNow, 0), Names{"c"});
  reconciler_.not_made("c", kNow + seconds(30));
  EXPECT_TRUE(reconciler_.start(kNow, 0).empty());
  want({{"a", "1"}, {"b", "1"}, {"c", "2"}});
  EXPECT_EQ(reconciler_.start(kNow, 0), Names{"c"});
}

TEST_F(ReconcilerTest, NothingIsOwnedOrRunsAfterALoss) {
  reconciler_.balance({2, std::nullopt});
  reconciler_.lost();
  EXPECT_TRUE(reconciler_.start(kNow, 0).empty());
  EXPECT_TRUE(reconciler_.leave().release.empty());
  EXPECT_EQ(reconciler_.balance(alone()).free_to_take, (Names{"a", "b"}));
  reconciler_.took(Names{"a", "b"});
  EXPECT_EQ(reconciler_.start(kNow, 0), (Names{"a", "b"}));
}

TEST_F(ReconcilerTest, ANewLeaseEndsTheWaitOfABrokenPipeline) {
  reconciler_.broke_off("a", true, kNow + seconds(5));
  reconciler_.ended("a");
  reconciler_.leave();
  reconciler_.took(Names{"a"});
  EXPECT_EQ(reconciler_.start(kNow, 0), Names{"a"});
}

TEST_F(ReconcilerTest, APipelineThatIsRemovedBetweenStopAndStartStaysStopped) {
  want({{"a", "2"}, {"b", "1"}});
  reconciler_.ended("a");
  want({{"b", "1"}});
  EXPECT_TRUE(reconciler_.start(kNow, 0).empty());
  EXPECT_EQ(reconciler_.leave().release, Names{"a"});
}

TEST_F(ReconcilerTest, AFollowerHandsOverAllAndALeaderTakesAll) {
  EXPECT_EQ(reconciler_.balance({2, false}).hand_over, (Names{"b", "a"}));
  Reconciler leader;
  const std::vector<Reconciler::Wanted> wanted = {{"a", "1"}, {"b", "1"}, {"c", "1"}};
  leader.follow(wanted);
  EXPECT_EQ(leader.balance({2, true}).limit, 3u);
}

TEST(Reconciler, ManyPipelinesComeUpInTurns) {
  Reconciler reconciler;
  std::vector<Reconciler::Wanted> wanted;
  for (int i = 0; i < 20; ++i) wanted.push_back({"p" + std::to_string(100 + i), "1"});
  reconciler.follow(wanted);
  reconciler.took(reconciler.balance(alone()).free_to_take);
  EXPECT_TRUE(reconciler.start(kNow, Reconciler::kStartingAtOnce).empty());
  EXPECT_EQ(reconciler.start(kNow, 0).size(), Reconciler::kStartingAtOnce);
  EXPECT_EQ(reconciler.start(kNow, 0).size(), 4u);
}

/// What the instances of the model share: the catalog and the leases.
struct World {
  std::map<std::string, std::string> catalog;
  std::map<std::string, int> leases;
  std::optional<int> leader;
  bool leader_mode = false;
  std::size_t live = 0;
  Time now = kNow;
  std::map<std::string, int> runs;  ///< how many pipelines of a name run, anywhere
  std::size_t starts = 0;
};

/// An instance that does what its reconciler says, one round after another, as the coordinator
/// does.
class Instance {
 public:
  Instance(World& world, int number) : world_(world), number_(number) {}

  void round() {
    join();
    const auto leaving = reconciler_.leave();
    for (const std::string& name : leaving.release) {
      RC_ASSERT(!running_.contains(name));
      RC_ASSERT(world_.leases.at(name) == number_);
      world_.leases.erase(name);
    }
    for (const std::string& name : leaving.forget) RC_ASSERT(!running_.contains(name));
    std::vector<Reconciler::Wanted> wanted;
    for (const auto& [name, version] : world_.catalog) wanted.push_back({name, version});
    stop(reconciler_.follow(wanted).stop);
    exchange();
    start();
  }

  /// Its lease session ends.
  void lose() {
    if (!std::exchange(live_, false)) return;
    --world_.live;
    std::erase_if(world_.leases, [&](const auto& lease) { return lease.second == number_; });
    if (world_.leader == number_) world_.leader.reset();
    for (const auto& [name, pipeline] : running_) --world_.runs[name];
    running_.clear();
    reconciler_.lost();
  }

  void break_off(const std::string& name, bool fenced) {
    const auto found = running_.find(name);
    if (found == running_.end() || found->second.stopping) return;
    reconciler_.broke_off(name, fenced,
                          fenced ? std::nullopt : std::optional(world_.now + seconds(5)));
    found->second.stopping = true;
  }

  /// Pipelines that were asked to stop have ended: this one, or (empty) all.
  void end(const std::string& name) {
    for (auto it = running_.begin(); it != running_.end();) {
      if (!it->second.stopping || (!name.empty() && it->first != name)) {
        ++it;
        continue;
      }
      reconciler_.ended(it->first);
      --world_.runs[it->first];
      it = running_.erase(it);
    }
  }

  bool live() const { return live_; }
  std::size_t owned() const {
    return static_cast<std::size_t>(
        std::count_if(world_.leases.begin(), world_.leases.end(),
                      [&](const auto& lease) { return lease.second == number_; }));
  }
  bool runs(const std::string& name, const std::string& version) const {
    const auto found = running_.find(name);
    return found != running_.end() && found->second.version == version && !found->second.stopping;
  }
  std::size_t running() const { return running_.size(); }

 private:
  struct Running {
    std::string version;
    bool stopping = false;
  };

  void join() {
    if (!std::exchange(live_, true)) ++world_.live;
    if (world_.leader_mode && !world_.leader) world_.leader = number_;
  }
  void stop(const Names& names) {
    for (const std::string& name : names) {
      RC_ASSERT(running_.contains(name));
      RC_ASSERT(!running_.at(name).stopping);
      running_.at(name).stopping = true;
    }
  }
  void exchange() {
    Reconciler::Group group{world_.live, std::nullopt};
    if (world_.leader_mode) group.leads = world_.leader == number_;
    const auto exchange = reconciler_.balance(group);
    stop(exchange.stop);
    Names taken;
    for (const std::string& name : exchange.free_to_take) {
      if (taken.size() == exchange.limit) break;
      if (world_.leases.emplace(name, number_).second) taken.push_back(name);
    }
    reconciler_.took(taken);
  }
  void start() {
    const Names names = reconciler_.start(world_.now, 0);
    RC_ASSERT(names.size() <= Reconciler::kStartingAtOnce);
    for (const std::string& name : names) {
      RC_ASSERT(world_.leases.at(name) == number_);
      RC_ASSERT(++world_.runs[name] == 1);
      running_[name] = {world_.catalog.at(name), false};
      ++world_.starts;
    }
  }

  World& world_;
  const int number_;
  bool live_ = false;
  Reconciler reconciler_;
  std::map<std::string, Running> running_;
};

std::string name_of(int number) {
  return "p" + std::to_string(100 + number);
}

/// Rounds of all instances until nothing more is to be done.
void settle(World& world, std::vector<Instance>& instances) {
  for (int round = 0; round < 8; ++round) {
    world.now += seconds(60);
    for (Instance& instance : instances) {
      instance.round();
      instance.end("");
    }
  }
}

/// Each wanted pipeline runs once, as the catalog has it, and no other does.
void check_settled(const World& world, const std::vector<Instance>& instances) {
  RC_ASSERT(world.leases.size() == world.catalog.size());
  std::size_t running = 0;
  for (const Instance& instance : instances) running += instance.running();
  RC_ASSERT(running == world.catalog.size());
  for (const auto& wanted : world.catalog) {
    RC_ASSERT(std::count_if(instances.begin(), instances.end(), [&](const Instance& instance) {
                return instance.runs(wanted.first, wanted.second);
              }) == 1);
  }
  const std::size_t share = world.leader_mode
                                ? world.catalog.size()
                                : (world.catalog.size() + instances.size() - 1) / instances.size();
  for (const Instance& instance : instances) RC_ASSERT(instance.owned() <= share);
}

RC_GTEST_PROP(Reconciler, EachWantedPipelineComesToRunOnceWhateverHappened, ()) {
  constexpr int kNames = 5;
  constexpr int kInstances = 3;
  World world;
  world.leader_mode = *rc::gen::arbitrary<bool>();
  std::vector<Instance> instances;
  for (int i = 0; i < kInstances; ++i) instances.emplace_back(world, i);
  const auto events = *rc::gen::container<std::vector<std::tuple<int, int, int>>>(rc::gen::tuple(
      rc::gen::inRange(0, 12), rc::gen::inRange(0, kNames), rc::gen::inRange(0, kInstances)));
  int version = 0;
  for (const auto& [event, number, one] : events) {
    const std::string name = name_of(number);
    Instance& instance = instances[static_cast<std::size_t>(one)];
    world.now += seconds(1);
    switch (event) {
      case 0:
      case 1:
        world.catalog[name] = std::to_string(++version);
        break;
      case 2:
        world.catalog.erase(name);
        break;
      case 3:
        instance.lose();
        break;
      case 4:
      case 5:
        instance.break_off(name, event == 4);
        break;
      case 6:
      case 7:
        instance.end(event == 6 ? name : "");
        break;
      default:
        instance.round();
    }
  }
  settle(world, instances);
  check_settled(world, instances);

  // From here on exactly what changed is started anew, and once.
  const std::size_t before = world.starts;
  settle(world, instances);
  RC_ASSERT(world.starts == before);
  if (world.catalog.empty()) return;
  world.catalog.begin()->second = "changed";
  settle(world, instances);
  RC_ASSERT(world.starts == before + 1);
  check_settled(world, instances);
}

}  // namespace
}  // namespace relay::coordinator
