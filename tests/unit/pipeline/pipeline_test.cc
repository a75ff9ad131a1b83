#include "pipeline/pipeline.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool eventually(const std::function<bool()>& condition) {
  const Deadline deadline = Deadline::after(seconds(10));
  while (!condition()) {
    if (deadline.passed()) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Events 1, 2, 3, ... as far as they were published; remembers what was acknowledged.
struct Feed {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::int64_t published = 0;
  std::int64_t acknowledged = 0;
  SteadyClock::time_point acknowledged_at{};
  std::optional<SteadyClock::duration> repeated_after;  // the same position came again
  bool went_back = false;
  std::optional<std::string> fence;  // the code of the error that acknowledging meets
  std::atomic<bool> more_to_come = false;
  std::atomic<bool> away = false;  // it cannot be read
  std::atomic<int> tended = 0;
  std::atomic<int> empty_reads = 0;
  std::atomic<std::size_t> largest_batch = 0;
  std::vector<std::string> letters;
  std::atomic<int> opened = 0;

  void publish(std::int64_t count) {
    {
      const std::lock_guard lock(mutex);
      published += count;
    }
    changed.notify_all();
  }
  std::int64_t settled() {
    const std::lock_guard lock(mutex);
    return acknowledged;
  }
};

class FeedSource final : public Source {
 public:
  explicit FeedSource(std::shared_ptr<Feed> feed) : feed_(std::move(feed)) {}

  Result<void> open(std::stop_token) override {
    const std::lock_guard lock(feed_->mutex);
    next_ = feed_->acknowledged + 1;
    ++feed_->opened;
    return {};
  }

  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override {
    std::unique_lock lock(feed_->mutex);
    feed_->changed.wait_until(lock, stop, std::min(deadline.at(), SteadyClock::now() + seconds(1)),
                              [this] { return feed_->published >= next_; });
    if (feed_->away) return fail(ErrorClass::transient, "away", "the source is away");
    RecordBatch batch;
    const auto shape = std::make_shared<const TableShape>(TableShape{"feed", {}});
    while (next_ <= feed_->published && batch.records.size() < limits.records) {
      Record record;
      record.id = record.outbox_id = next_++;
      record.mark = batch.arena.copy(std::to_string(record.id));
      Event event;
      event.id = record.mark;
      event.payload = record.mark;
      event.key = record.id % 2 == 0 ? "even" : "odd";
      record.content = event;
      batch.add(std::move(record), shape);
    }
    if (batch.empty()) ++feed_->empty_reads;
    feed_->largest_batch = std::max(feed_->largest_batch.load(), batch.records.size());
    return batch;
  }

  Result<void> acknowledge(const Position& position, std::span<const DeadLetter> letters) override {
    const std::lock_guard lock(feed_->mutex);
    if (feed_->fence) return fail(ErrorClass::fenced, *feed_->fence, "as the test wants it");
    if (position.id < feed_->acknowledged) feed_->went_back = true;
    const auto now = SteadyClock::now();
    const bool again = position.id == feed_->acknowledged;
    if (again && !feed_->repeated_after) feed_->repeated_after = now - feed_->acknowledged_at;
    feed_->acknowledged = position.id;
    feed_->acknowledged_at = now;
    for (const auto& letter : letters) feed_->letters.push_back(letter.message_id);
    return {};
  }
  bool keeps_dead_letters() const override { return true; }
  std::chrono::milliseconds tend(std::stop_token) override {
    ++feed_->tended;
    return std::chrono::milliseconds(10);
  }
  std::optional<std::int64_t> lag() override {
    const std::lock_guard lock(feed_->mutex);
    return feed_->published - next_ + 1;
  }
  bool more_to_come() const override { return feed_->more_to_come; }
  void close() override {}

 private:
  std::shared_ptr<Feed> feed_;
  std::int64_t next_ = 1;
};

/// Answers as a test tells it to, and remembers what arrived.
struct Broker {
  std::mutex mutex;
  std::vector<std::string> arrived;
  std::function<Outcome(const Message&)> answer = [](const Message&) {
    return Outcome::delivered();
  };
  std::atomic<int> opened = 0;
  std::vector<std::string> all() {
    const std::lock_guard lock(mutex);
    return arrived;
  }
};

class BrokerSink final : public Sink {
 public:
  explicit BrokerSink(std::shared_ptr<Broker> broker) : broker_(std::move(broker)) {}
  Result<void> open(std::stop_token) override {
    const std::lock_guard lock(broker_->mutex);
    ++broker_->opened;
    return {};
  }
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline,
                               std::stop_token) override {
    const std::lock_guard lock(broker_->mutex);
    std::vector<Outcome> outcomes;
    for (const Message& message : messages) {
      outcomes.push_back(broker_->answer(message));
      if (outcomes.back().kind == Outcome::Kind::delivered) {
        broker_->arrived.emplace_back(message.body);
      }
    }
    return outcomes;
  }
  void close() override {}

 private:
  std::shared_ptr<Broker> broker_;
};

class NoLetters final : public DeadLetterQueue {
 public:
  Result<void> store(std::span<const DeadLetter>) override { return {}; }
  Result<std::vector<DeadLetter>> take_retries(std::size_t) override {
    return std::vector<DeadLetter>{};
  }
  Result<void> resolve(std::int64_t) override { return {}; }
  Result<void> failed_again(std::int64_t, const Error&) override { return {}; }
  Result<std::set<std::string>> parked_keys() override { return std::set<std::string>{}; }
};

class PipelineTest : public testing::Test {
 protected:
  std::unique_ptr<Pipeline> make(PipelineSpec spec = {}) {
    spec.name = "test";
    spec.retry_min = milliseconds(1);
    spec.retry_max = milliseconds(5);
    envelope::EncoderOptions options;
    options.id_prefix = "test";
    auto encoder = envelope::Encoder::make(std::move(options));
    EXPECT_TRUE(encoder.has_value());
    return std::make_unique<Pipeline>(spec, std::make_unique<FeedSource>(feed_),
                                      std::move(*encoder), std::make_unique<BrokerSink>(broker_),
                                      std::make_unique<NoLetters>(), metrics_.pipeline("test"),
                                      hooks_);
  }
  static SharedError error(ErrorClass error_class) {
    return std::make_shared<Error>(Error{error_class, "test", "as the test wants it", "", {}});
  }
  std::vector<std::string> first(int count) const {
    std::vector<std::string> bodies;
    for (int i = 1; i <= count; ++i) bodies.push_back(std::to_string(i));
    return bodies;
  }

  std::shared_ptr<Feed> feed_ = std::make_shared<Feed>();
  std::shared_ptr<Broker> broker_ = std::make_shared<Broker>();
  Metrics metrics_{"relay_"};
  PipelineHooks hooks_;
};

TEST_F(PipelineTest, DeliversEverythingInOrderAndAcknowledgesIt) {
  auto pipeline = make();
  pipeline->start();
  for (int i = 0; i < 10; ++i) feed_->publish(1000);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 10000; }));
  EXPECT_EQ(broker_->all(), first(10000));
  EXPECT_EQ(metrics_.pipeline("test")->delivered.Value(), 10000);
}

TEST_F(PipelineTest, RepeatsAPositionOnlyWhenItHasComeToRest) {
  auto pipeline = make();
  pipeline->start();
  feed_->publish(5);
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(feed_->mutex);
    return feed_->repeated_after.has_value();
  }));
  const std::lock_guard lock(feed_->mutex);
  EXPECT_GE(*feed_->repeated_after, milliseconds(50));
}

TEST_F(PipelineTest, SendsAgainWhatIsUnknownUntilItArrives) {
  std::map<std::string, int> tries;
  broker_->answer = [&](const Message& message) {
    const int number = ++tries[std::string(message.id)];
    const bool fails = message.id.size() % 2 == 0 && number < 4;
    return fails ? Outcome::unknown(error(ErrorClass::transient)) : Outcome::delivered();
  };
  auto pipeline = make();
  pipeline->start();
  feed_->publish(100);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 100; }));
  const auto all = broker_->all();
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 100u);
  EXPECT_EQ(all.size(), 100u);
  EXPECT_TRUE(feed_->letters.empty()) << "a connection problem must not reach the dead letters";
  EXPECT_FALSE(feed_->went_back);
}

TEST_F(PipelineTest, SetsAsideOnlyTheRejectedMessageAndGoesOn) {
  broker_->answer = [&](const Message& message) {
    return message.body == "50" ? Outcome::rejected(error(ErrorClass::rejected))
                                : Outcome::delivered();
  };
  auto pipeline = make();
  pipeline->start();
  feed_->publish(100);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 100; }));
  EXPECT_EQ(feed_->letters.size(), 1u);
  EXPECT_EQ(broker_->all().size(), 99u);
}

TEST_F(PipelineTest, WaitsBehindAPoisonMessageWhereItIsToldToStop) {
  std::atomic<bool> poisonous = true;
  broker_->answer = [&](const Message& message) {
    return message.body == "50" && poisonous ? Outcome::rejected(error(ErrorClass::rejected))
                                             : Outcome::delivered();
  };
  PipelineSpec spec;
  spec.on_reject = OnReject::stop;
  auto pipeline = make(spec);
  pipeline->start();
  feed_->publish(100);
  ASSERT_TRUE(eventually([&] { return pipeline->report().state == PipelineState::stopped; }));
  EXPECT_EQ(broker_->all(), first(49)) << "nothing behind the poison is sent";
  EXPECT_LT(feed_->settled(), 50);
  poisonous = false;
  pipeline->set_paused(false);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 100; }));
  EXPECT_EQ(broker_->all(), first(100));
  EXPECT_TRUE(feed_->letters.empty());
}

TEST_F(PipelineTest, ParksLaterMessagesOfAKeyBehindItsPoison) {
  broker_->answer = [&](const Message& message) {
    return message.body == "50" ? Outcome::rejected(error(ErrorClass::rejected))
                                : Outcome::delivered();
  };
  PipelineSpec spec;
  spec.on_reject = OnReject::park_key;
  spec.limits.records = 10;
  auto pipeline = make(spec);
  pipeline->start();
  feed_->publish(100);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 100; }));
  const auto all = broker_->all();
  std::vector<std::string> odd, even, parked;
  for (int i = 1; i <= 100; ++i) {
    (i % 2 == 1 ? odd : i < 50 ? even : parked).push_back(std::to_string(i));
  }
  const auto of = [&](bool is_odd) {
    std::vector<std::string> some;
    std::copy_if(all.begin(), all.end(), std::back_inserter(some),
                 [&](const std::string& body) { return (std::stoi(body) % 2 == 1) == is_odd; });
    return some;
  };
  EXPECT_EQ(of(true), odd);
  EXPECT_EQ(of(false), even);
  EXPECT_EQ(feed_->letters.size(), parked.size());
}

TEST_F(PipelineTest, StopsAndCommitsNothingWhenItIsFencedOrItsSourceRewound) {
  using Kind = PipelineEnd::Kind;
  for (const auto& [code, kind] :
       {std::pair("fenced", Kind::fenced), std::pair("outbox_rewound", Kind::rewound)}) {
    feed_ = std::make_shared<Feed>();
    auto pipeline = make();
    pipeline->start();
    feed_->publish(10);
    ASSERT_TRUE(eventually([&] { return feed_->settled() == 10; }));
    {
      const std::lock_guard lock(feed_->mutex);
      feed_->fence = code;
    }
    feed_->publish(10);
    ASSERT_TRUE(eventually([&] { return pipeline->report().end && pipeline->ended(); }));
    EXPECT_EQ(pipeline->report().end->kind, kind);
    EXPECT_EQ(pipeline->report().state, PipelineState::standby);
    EXPECT_EQ(feed_->settled(), 10);
  }
}

TEST_F(PipelineTest, EndsWithADefectWhenDeliveringThrows) {
  broker_->answer = [&](const Message& message) -> Outcome {
    if (message.body == "50") throw std::runtime_error("as the test wants it");
    return Outcome::delivered();
  };
  PipelineSpec spec;
  spec.limits.records = 10;
  auto pipeline = make(spec);
  pipeline->start();
  feed_->publish(40);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 40; }));
  feed_->publish(60);
  ASSERT_TRUE(eventually([&] { return pipeline->report().end && pipeline->ended(); }));
  const auto report = pipeline->report();
  EXPECT_EQ(report.end->kind, PipelineEnd::Kind::defect);
  EXPECT_EQ(report.state, PipelineState::retrying);
  EXPECT_EQ(report.error->message, report.end->error.message);
  EXPECT_LT(feed_->settled(), 50);
}

TEST_F(PipelineTest, SendsNothingWhileItsLeaseIsNotValid) {
  Lease lease;
  hooks_.lease = &lease;
  auto pipeline = make();
  pipeline->start();
  feed_->publish(10);
  ASSERT_TRUE(eventually([&] { return pipeline->report().has_work; }));
  EXPECT_TRUE(broker_->all().empty());
  lease.extend(BootClock::time_point::max(), BootClock::time_point::max());
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 10; }));
}

TEST_F(PipelineTest, UpdatesTheLagWhileItsSinkTakesNothing) {
  broker_->answer = [&](const Message&) { return Outcome::unknown(error(ErrorClass::transient)); };
  PipelineSpec spec;
  spec.limits.records = 1;
  auto pipeline = make(spec);
  pipeline->start();
  feed_->publish(200);  // more than wait inside
  ASSERT_TRUE(eventually([&] { return pipeline->report().lag.value_or(0) > 0; }));
  feed_->publish(900);
  ASSERT_TRUE(eventually([&] { return pipeline->report().lag.value_or(0) > 900; }));
}

TEST_F(PipelineTest, TendsItsSourceWhileItsSinkTakesNothingOrItIsPaused) {
  broker_->answer = [&](const Message&) { return Outcome::unknown(error(ErrorClass::transient)); };
  auto pipeline = make();
  pipeline->start();
  feed_->publish(100);
  ASSERT_TRUE(eventually([&] { return feed_->tended > 3; }));
  pipeline->set_paused(true);
  const int before = feed_->tended;
  ASSERT_TRUE(eventually([&] { return feed_->tended > before + 3; }));
}

TEST_F(PipelineTest, ReadsLittleAheadOfASinkThatTakesNothing) {
  std::atomic<bool> stuck = true;
  broker_->answer = [&](const Message&) {
    return stuck ? Outcome::unknown(error(ErrorClass::transient)) : Outcome::delivered();
  };
  auto pipeline = make();
  feed_->publish(5000);
  pipeline->start();
  ASSERT_TRUE(eventually([&] { return feed_->tended > 3; }));
  EXPECT_LE(feed_->largest_batch, 100u);
  stuck = false;
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 5000; }));
  EXPECT_GT(feed_->largest_batch, 100u);
}

TEST_F(PipelineTest, DoesNotKnowTheLagWhileItsSourceIsAway) {
  auto pipeline = make();
  pipeline->start();
  feed_->publish(10);
  ASSERT_TRUE(eventually([&] { return pipeline->report().lag == 0; }));
  feed_->away = true;
  feed_->publish(1);
  ASSERT_TRUE(eventually([&] { return !pipeline->report().lag; }));
  EXPECT_TRUE(std::isnan(metrics_.pipeline("test")->lag.Value()));
  feed_->away = false;
  ASSERT_TRUE(eventually([&] { return pipeline->report().lag == 0; }));
}

TEST_F(PipelineTest, SleepsWithoutThreadsAndWakesForNewWork) {
  PipelineSpec spec;
  spec.may_sleep = true;
  auto pipeline = make(spec);
  pipeline->start();
  ASSERT_TRUE(eventually([&] { return pipeline->asleep() && pipeline->ended(); }));
  for (int round = 1; round <= 20; ++round) {
    feed_->publish(5);
    pipeline->wake();
    ASSERT_TRUE(eventually([&] {
      pipeline->wake();
      return feed_->settled() == 5 * round;
    }));
  }
  EXPECT_EQ(broker_->all(), first(100));
}

TEST_F(PipelineTest, StaysAwakeWhileItsSourceExpectsMore) {
  feed_->more_to_come = true;
  PipelineSpec spec;
  spec.may_sleep = true;
  auto pipeline = make(spec);
  pipeline->start();
  ASSERT_TRUE(eventually([&] { return pipeline->report().state == PipelineState::idle; }));
  // It decides after each read that brings nothing whether it falls asleep.
  ASSERT_TRUE(eventually([&] { return feed_->empty_reads >= 2; }));
  EXPECT_FALSE(pipeline->report().asleep);
  feed_->publish(1);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 1; }));
}

TEST_F(PipelineTest, AWokenPipelineIsNotStalledForHavingSlept) {
  PipelineSpec spec;
  spec.may_sleep = true;
  auto pipeline = make(spec);
  pipeline->start();
  ASSERT_TRUE(eventually([&] { return pipeline->asleep(); }));
  const auto before = std::chrono::system_clock::now();
  pipeline->wake();
  EXPECT_GE(pipeline->report().last_progress, before);
}

TEST_F(PipelineTest, ARequestWakesASleepingPipeline) {
  PipelineSpec spec;
  spec.may_sleep = true;
  auto pipeline = make(spec);
  pipeline->start();
  ASSERT_TRUE(eventually([&] { return pipeline->asleep(); }));
  const int opened = broker_->opened;
  pipeline->attend();
  EXPECT_TRUE(pipeline->asleep()) << "nothing was asked";
  pipeline->dead_letters_changed();
  ASSERT_TRUE(eventually([&] { return broker_->opened > opened; }));
}

TEST_F(PipelineTest, DeliversNothingWhilePausedAndAllAfterwards) {
  auto pipeline = make();
  pipeline->set_paused(true);
  pipeline->start();
  feed_->publish(10);
  ASSERT_TRUE(eventually([&] { return pipeline->report().state == PipelineState::paused; }));
  EXPECT_TRUE(broker_->all().empty());
  pipeline->set_paused(false);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 10; }));
}

TEST_F(PipelineTest, WritesTheSettledPositionWhilePaused) {
  auto pipeline = make();
  broker_->answer = [&](const Message&) {
    pipeline->set_paused(true);
    return Outcome::delivered();
  };
  pipeline->start();
  feed_->publish(5);
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(feed_->mutex);
    return feed_->acknowledged == 5 && feed_->repeated_after.has_value();
  }));
  EXPECT_EQ(pipeline->report().state, PipelineState::paused);
  pipeline.reset();  // before what its sink calls goes
}

TEST_F(PipelineTest, EndsAtOnceWhileTheBrokerIsAway) {
  broker_->answer = [&](const Message&) { return Outcome::unknown(error(ErrorClass::transient)); };
  PipelineSpec spec;
  auto pipeline = make(spec);
  pipeline->start();
  feed_->publish(10);
  ASSERT_TRUE(eventually([&] { return pipeline->report().state == PipelineState::retrying; }));
  pipeline->request_stop();
  pipeline->join(Deadline::after(seconds(5)));
  EXPECT_TRUE(pipeline->ended());
  EXPECT_EQ(feed_->settled(), 0);
}

TEST_F(PipelineTest, TheRateLimitHolds) {
  PipelineSpec spec;
  spec.rate_limit = 200;
  auto pipeline = make(spec);
  const auto began = SteadyClock::now();
  pipeline->start();
  feed_->publish(100);
  ASSERT_TRUE(eventually([&] { return feed_->settled() == 100; }));
  EXPECT_GE(SteadyClock::now() - began, milliseconds(400));
}

}  // namespace
}  // namespace relay
