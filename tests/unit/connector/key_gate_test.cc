#include "connector/key_gate.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace relay {
namespace {

std::vector<Message> with_keys(const std::vector<std::string>& keys) {
  std::vector<Message> messages(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) messages[i].key = keys[i];
  return messages;
}

TEST(KeyGate, GivesAllInOrderWherePipelined) {
  const std::vector<std::string> keys{"a", "a", "b"};
  KeyGate gate(with_keys(keys), false);
  EXPECT_EQ(gate.next(), 0);
  EXPECT_EQ(gate.next(), 1);
  EXPECT_EQ(gate.next(), 2);
  EXPECT_EQ(gate.next(), -1);
}

TEST(KeyGate, HoldsAMessageBackUntilTheOneBeforeItOfThatKeyIsThrough) {
  const std::vector<std::string> keys{"a", "b", "a", "a"};
  KeyGate gate(with_keys(keys), true);
  EXPECT_EQ(gate.next(), 0);
  EXPECT_EQ(gate.next(), 1);
  EXPECT_EQ(gate.next(), -1);
  gate.finished(1);
  EXPECT_EQ(gate.next(), -1);
  gate.finished(0);
  EXPECT_EQ(gate.next(), 2);
  gate.finished(2);
  EXPECT_EQ(gate.next(), 3);
}

TEST(KeyGate, HasAtMostOneOfAKeyUnderWayAndForgetsNone) {
  rc::check([] {
    const auto numbers = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 5));
    std::vector<std::string> keys;
    for (const int number : numbers) keys.push_back(std::to_string(number));
    const auto messages = with_keys(keys);
    KeyGate gate(messages, true);
    std::vector<std::size_t> under_way;
    std::map<std::string_view, std::ptrdiff_t> last;
    std::size_t given = 0;
    while (true) {
      const auto next = gate.next();
      if (next >= 0) {
        const auto key = messages[static_cast<std::size_t>(next)].key;
        for (const std::size_t other : under_way) RC_ASSERT(messages[other].key != key);
        RC_ASSERT(!last.contains(key) || last[key] < next);
        last[key] = next;
        under_way.push_back(static_cast<std::size_t>(next));
        ++given;
      } else if (under_way.empty()) {
        break;
      }
      if (!under_way.empty() && *rc::gen::inRange(0, 2) == 0) {
        const auto which = *rc::gen::inRange<std::size_t>(0, under_way.size());
        gate.finished(under_way[which]);
        under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(which));
      }
    }
    RC_ASSERT(given == messages.size());
  });
}

}  // namespace
}  // namespace relay
