#include "pipeline/shared_state.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace relay {
namespace {

using std::chrono::milliseconds;
using Kind = SharedState::Work::Kind;

MessageBatch one_record() {
  MessageBatch batch;
  batch.records.records.resize(1);
  batch.records.id_suffix = ":r1";  // batches of a replay are not joined
  return batch;
}

class SharedStateTest : public testing::Test {
 protected:
  /// What the sender is given next; nothing is waited for.
  Kind next() { return shared_.wait_for_work(milliseconds(0), {}).kind; }
  void push() { ASSERT_TRUE(shared_.push(one_record(), {})); }
  /// As it stands when both sides are open and nothing is to be done.
  void open() {
    ASSERT_TRUE(shared_.begin());
    shared_.source_opened();
    shared_.set_sink_open(true);
    shared_.take_retry_request();
  }

  prometheus::Gauge state_metric_;
  SharedState shared_{1 << 20, state_metric_};
};

TEST_F(SharedStateTest, GivesBatchesAndDeadLettersInTurn) {
  open();
  std::vector<Kind> given;
  for (int i = 0; i < 3; ++i) push();
  for (int i = 0; i < 4; ++i) {
    shared_.request_retries();
    given.push_back(next());
  }
  EXPECT_EQ(given, (std::vector{Kind::dead_letters, Kind::batch, Kind::dead_letters, Kind::batch}));
  EXPECT_EQ(next(), Kind::dead_letters);
  EXPECT_EQ(next(), Kind::batch);
  EXPECT_EQ(next(), Kind::nothing);
}

TEST_F(SharedStateTest, GivesDeadLettersFirstInEachLife) {
  ASSERT_TRUE(shared_.begin());
  shared_.source_opened();
  shared_.set_sink_open(true);
  EXPECT_EQ(next(), Kind::dead_letters);
  ASSERT_TRUE(shared_.fall_asleep());
  shared_.reader_ended();
  shared_.sender_ended();

  shared_.request_retries();
  ASSERT_TRUE(shared_.begin());
  push();
  EXPECT_EQ(next(), Kind::dead_letters);
}

TEST_F(SharedStateTest, GivesNothingWhilePaused) {
  open();
  push();
  shared_.set_paused(true);
  EXPECT_EQ(next(), Kind::nothing);
  shared_.set_paused(false);
  EXPECT_EQ(next(), Kind::batch);
}

TEST_F(SharedStateTest, TellsTheStateThatAnOpenedSinkMakes) {
  ASSERT_TRUE(shared_.begin());
  shared_.source_opened();
  const auto before = std::chrono::system_clock::now();
  shared_.set_sink_open(true);
  EXPECT_EQ(state_metric_.Value(), static_cast<double>(PipelineState::idle));
  EXPECT_GE(shared_.report().since, before);
}

TEST_F(SharedStateTest, FallsAsleepOnlyWhenThereIsNothingToDo) {
  open();
  const auto stays_awake = [&] { return !shared_.fall_asleep(); };
  push();
  EXPECT_TRUE(stays_awake()) << "a batch waits";
  EXPECT_EQ(next(), Kind::batch);
  EXPECT_TRUE(stays_awake()) << "a batch is in flight";
  shared_.batch_done(1);
  shared_.set_lag(1);
  EXPECT_TRUE(stays_awake()) << "a record waits";
  shared_.set_lag(0);
  shared_.request_retries();
  EXPECT_TRUE(stays_awake()) << "dead letters wait";
  shared_.take_retry_request();
  shared_.add_replay({});
  EXPECT_TRUE(stays_awake()) << "a replay waits";
  shared_.end_replay();
  shared_.set_paused(true);
  EXPECT_TRUE(stays_awake()) << "it is paused";
  shared_.set_paused(false);
  shared_.set_failure(Side::sender, {});
  EXPECT_TRUE(stays_awake()) << "the sink fails";
  shared_.clear_failure(Side::sender);
  shared_.set_sink_open(false);
  EXPECT_TRUE(stays_awake()) << "the sink is not open";
  shared_.set_sink_open(true);
  EXPECT_TRUE(shared_.fall_asleep());
  EXPECT_EQ(next(), Kind::stop);
}

TEST_F(SharedStateTest, RemembersWhatWasAskedWhileItFellAsleep) {
  open();
  ASSERT_TRUE(shared_.fall_asleep());
  shared_.add_replay({});
  EXPECT_FALSE(shared_.asked_while_asleep()) << "its threads still run";
  shared_.reader_ended();
  shared_.sender_ended();
  EXPECT_TRUE(shared_.asleep());
  EXPECT_TRUE(shared_.asked_while_asleep());
  EXPECT_TRUE(shared_.begin());
  EXPECT_FALSE(shared_.asleep());
}

TEST_F(SharedStateTest, StartsNoThreadsTwiceNorAfterAStop) {
  ASSERT_TRUE(shared_.begin());
  EXPECT_FALSE(shared_.begin());
  shared_.reader_ended();
  EXPECT_FALSE(shared_.begin()) << "the sender still runs";
  shared_.sender_ended();
  EXPECT_TRUE(shared_.ended());
  shared_.request_stop();
  EXPECT_FALSE(shared_.begin());
}

TEST_F(SharedStateTest, ReadsForASinkThatIsClosedOnlyWhereReadingCostsNothing) {
  open();
  const auto turn = [&](bool needs_sink) {
    return shared_.wait_to_read(needs_sink, SteadyClock::now(), {});
  };
  shared_.set_sink_open(false);
  EXPECT_EQ(turn(false), SharedState::Turn::read);
  EXPECT_EQ(turn(true), SharedState::Turn::not_yet);
  shared_.set_sink_open(true);
  EXPECT_EQ(turn(true), SharedState::Turn::read);
  shared_.request_stop();
  EXPECT_EQ(turn(true), SharedState::Turn::stop);
}

TEST_F(SharedStateTest, GivesNoPositionToWriteAfterAFence) {
  open();
  shared_.settled({7, 0, "mark"});
  ASSERT_TRUE(shared_.position_to_write());
  EXPECT_EQ(shared_.position_to_write()->id, 7);
  shared_.end({PipelineEnd::Kind::fenced, {}});
  EXPECT_FALSE(shared_.position_to_write());
  EXPECT_TRUE(shared_.stopping());
}

TEST_F(SharedStateTest, ANudgeEndsAWaitEarly) {
  std::jthread nudger([&](std::stop_token stop) {
    while (!stop.stop_requested()) shared_.nudge();
  });
  const auto began = SteadyClock::now();
  EXPECT_TRUE(shared_.wait_for(std::chrono::minutes(1), {}));
  EXPECT_LT(SteadyClock::now() - began, std::chrono::seconds(30));
}

}  // namespace
}  // namespace relay
