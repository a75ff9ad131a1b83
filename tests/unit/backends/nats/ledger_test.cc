#include "backends/nats/ledger.h"

#include <gtest/gtest.h>

#include <thread>

namespace relay::nats {
namespace {

using Kind = Outcome::Kind;
using std::chrono::seconds;

const void* handle(std::uintptr_t n) {
  return reinterpret_cast<const void*>(n);
}
void send(Ledger& ledger, std::uintptr_t number, std::size_t message, std::size_t bytes) {
  const Ledger::Sending sending{handle(number), message, bytes};
  ledger.sending({&sending, 1});
}
SteadyClock::time_point soon() {
  return SteadyClock::now() + seconds(10);
}
SharedError trouble(std::string code) {
  return std::make_shared<const Error>(Error{ErrorClass::transient, std::move(code), "", "", {}});
}

TEST(Ledger, KeepsOneOutcomeAMessageWhateverTheOrderOfTheAnswers) {
  Ledger ledger("server");
  ledger.begin(3, false);
  for (std::size_t i = 0; i < 3; ++i) send(ledger, i + 1, i, 100);
  EXPECT_EQ(ledger.state().bytes_in_flight, 300u);
  ledger.told(handle(3), Outcome::delivered(), "S");
  ledger.told(handle(1), Outcome::duplicate(), "S");
  EXPECT_EQ(ledger.state().in_flight, 1u);
  EXPECT_EQ(ledger.stream(), "S");
  const auto known = ledger.end();
  EXPECT_EQ(known[0]->kind, Kind::duplicate);
  EXPECT_FALSE(known[1]);
  EXPECT_EQ(known[2]->kind, Kind::delivered);
}

TEST(Ledger, IgnoresWhatIsToldOfADeliveryThatEnded) {
  Ledger ledger("server");
  ledger.begin(1, false);
  send(ledger, 1, 0, 10);
  ledger.end();
  ledger.begin(1, false);
  send(ledger, 2, 0, 10);
  ledger.told(handle(1), Outcome::delivered(), "S");
  EXPECT_EQ(ledger.state().in_flight, 1u);
  EXPECT_FALSE(ledger.end()[0]);
}

TEST(Ledger, ForgetsWhatTheLibraryDidNotTake) {
  Ledger ledger("server");
  ledger.begin(3, false);
  const std::vector<Ledger::Sending> all{{handle(1), 0, 5}, {handle(2), 1, 5}, {handle(3), 2, 5}};
  ledger.sending(all);
  ledger.not_sent(std::span(all).subspan(1));
  EXPECT_EQ(ledger.state().in_flight, 1u);
  EXPECT_EQ(ledger.state().bytes_in_flight, 5u);
  ledger.told(handle(1), Outcome::delivered(), "S");
  EXPECT_EQ(ledger.state().oldest_sent, SteadyClock::time_point::max());
}

TEST(Ledger, WakesTheSenderWhenEnoughIsThrough) {
  Ledger ledger("server");
  ledger.begin(4, false);
  for (std::size_t i = 0; i < 4; ++i) send(ledger, i + 1, i, 1);
  std::jthread answers([&] {
    for (std::uintptr_t i = 1; i <= 4; ++i) ledger.told(handle(i), Outcome::delivered(), "S");
  });
  EXPECT_LE(ledger.wait(2, soon(), {}).in_flight, 2u);
  EXPECT_EQ(ledger.wait(0, soon(), {}).in_flight, 0u);
}

TEST(Ledger, ABrokenConnectionEndsTheWait) {
  Ledger ledger("server");
  ledger.begin(1, false);
  send(ledger, 1, 0, 1);
  std::jthread breaker([&] { ledger.broke(trouble("lost")); });
  const auto state = ledger.wait(0, soon(), {});
  EXPECT_TRUE(state.broken);
  EXPECT_EQ(state.failure->code, "lost");
}

TEST(Ledger, AStopEndsTheWait) {
  Ledger ledger("server");
  ledger.begin(1, false);
  send(ledger, 1, 0, 1);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(ledger.wait(0, soon(), stop.get_token()).in_flight, 1u);
}

TEST(Ledger, TheFirstFailureIsTheOneThatIsTold) {
  Ledger ledger("server");
  ledger.begin(3, true);
  for (std::size_t i = 0; i < 3; ++i) send(ledger, i + 1, i, 1);
  ledger.told(handle(1), Outcome::unknown(trouble("first")), {});
  ledger.told(handle(2), Outcome::unknown(trouble("second")), {});
  ledger.told(handle(3), Outcome::rejected(trouble("poison")), {});
  EXPECT_EQ(ledger.state().failure->code, "first");
  EXPECT_EQ(ledger.take_finished(), std::vector<std::size_t>{2});
}

TEST(Ledger, TheOldestUnansweredMessageIsTheOneThatIsWaitedFor) {
  Ledger ledger("server");
  ledger.begin(2, false);
  send(ledger, 1, 0, 1);
  const auto first = ledger.state().oldest_sent;
  send(ledger, 2, 1, 1);
  ledger.told(handle(2), Outcome::delivered(), "S");
  EXPECT_EQ(ledger.state().oldest_sent, first);
  ledger.told(handle(1), Outcome::delivered(), "S");
  EXPECT_EQ(ledger.state().oldest_sent, SteadyClock::time_point::max());
}

}  // namespace
}  // namespace relay::nats
