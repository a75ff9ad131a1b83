#include "backends/nats/outcomes.h"

#include <gtest/gtest.h>

#include <thread>

namespace relay::nats {
namespace {

using Kind = Outcome::Kind;
using std::chrono::seconds;

const void* handle(std::uintptr_t n) {
  return reinterpret_cast<const void*>(n);
}
void send(Outcomes& outcomes, std::uintptr_t number, std::size_t message, std::size_t bytes) {
  const Outcomes::Sending sending{handle(number), message, bytes};
  outcomes.sending({&sending, 1});
}
SteadyClock::time_point soon() {
  return SteadyClock::now() + seconds(10);
}
SharedError trouble(std::string code) {
  return std::make_shared<const Error>(Error{ErrorClass::transient, std::move(code), "", "", {}});
}

TEST(Outcomes, KeepsOneOutcomeAMessageWhateverTheOrderOfTheAnswers) {
  Outcomes outcomes("server");
  outcomes.begin(3, false);
  for (std::size_t i = 0; i < 3; ++i) send(outcomes, i + 1, i, 100);
  EXPECT_EQ(outcomes.state().load.bytes, 300u);
  outcomes.told(handle(3), Outcome::delivered(), "S");
  outcomes.told(handle(1), Outcome::duplicate(), "S");
  EXPECT_EQ(outcomes.state().load.messages, 1u);
  EXPECT_EQ(outcomes.stream(), "S");
  const auto known = outcomes.end();
  EXPECT_EQ(known[0]->kind, Kind::duplicate);
  EXPECT_FALSE(known[1]);
  EXPECT_EQ(known[2]->kind, Kind::delivered);
}

TEST(Outcomes, IgnoresWhatIsToldOfADeliveryThatEnded) {
  Outcomes outcomes("server");
  outcomes.begin(1, false);
  send(outcomes, 1, 0, 10);
  outcomes.end();
  outcomes.begin(1, false);
  send(outcomes, 2, 0, 10);
  outcomes.told(handle(1), Outcome::delivered(), "S");
  EXPECT_EQ(outcomes.state().load.messages, 1u);
  EXPECT_FALSE(outcomes.end()[0]);
}

TEST(Outcomes, ForgetsWhatTheLibraryDidNotTake) {
  Outcomes outcomes("server");
  outcomes.begin(3, false);
  const std::vector<Outcomes::Sending> all{{handle(1), 0, 5}, {handle(2), 1, 5}, {handle(3), 2, 5}};
  outcomes.sending(all);
  outcomes.not_sent(std::span(all).subspan(1));
  EXPECT_EQ(outcomes.state().load.messages, 1u);
  EXPECT_EQ(outcomes.state().load.bytes, 5u);
  outcomes.told(handle(1), Outcome::delivered(), "S");
  EXPECT_EQ(outcomes.state().load.waiting_since, SteadyClock::time_point::max());
}

TEST(Outcomes, WakesTheSenderWhenEnoughIsThrough) {
  Outcomes outcomes("server");
  outcomes.begin(4, false);
  for (std::size_t i = 0; i < 4; ++i) send(outcomes, i + 1, i, 1);
  std::jthread answers([&] {
    for (std::uintptr_t i = 1; i <= 4; ++i) outcomes.told(handle(i), Outcome::delivered(), "S");
  });
  EXPECT_LE(outcomes.wait(2, soon(), {}).load.messages, 2u);
  EXPECT_EQ(outcomes.wait(0, soon(), {}).load.messages, 0u);
}

TEST(Outcomes, ABrokenConnectionEndsTheWait) {
  Outcomes outcomes("server");
  outcomes.begin(1, false);
  send(outcomes, 1, 0, 1);
  std::jthread breaker([&] { outcomes.broke(trouble("lost")); });
  const auto state = outcomes.wait(0, soon(), {});
  EXPECT_TRUE(state.broken);
  EXPECT_EQ(state.failure->code, "lost");
}

TEST(Outcomes, AStopEndsTheWait) {
  Outcomes outcomes("server");
  outcomes.begin(1, false);
  send(outcomes, 1, 0, 1);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(outcomes.wait(0, soon(), stop.get_token()).load.messages, 1u);
}

TEST(Outcomes, TheFirstFailureIsTheOneThatIsTold) {
  Outcomes outcomes("server");
  outcomes.begin(3, true);
  for (std::size_t i = 0; i < 3; ++i) send(outcomes, i + 1, i, 1);
  outcomes.told(handle(1), Outcome::unknown(trouble("first")), {});
  outcomes.told(handle(2), Outcome::unknown(trouble("second")), {});
  outcomes.told(handle(3), Outcome::rejected(trouble("poison")), {});
  EXPECT_EQ(outcomes.state().failure->code, "first");
  EXPECT_EQ(outcomes.take_finished(), std::vector<std::size_t>{2});
}

TEST(Outcomes, TheOldestUnansweredMessageIsTheOneThatIsWaitedFor) {
  Outcomes outcomes("server");
  outcomes.begin(2, false);
  send(outcomes, 1, 0, 1);
  const auto first = outcomes.state().load.waiting_since;
  send(outcomes, 2, 1, 1);
  outcomes.told(handle(2), Outcome::delivered(), "S");
  EXPECT_EQ(outcomes.state().load.waiting_since, first);
  outcomes.told(handle(1), Outcome::delivered(), "S");
  EXPECT_EQ(outcomes.state().load.waiting_since, SteadyClock::time_point::max());
}

}  // namespace
}  // namespace relay::nats
