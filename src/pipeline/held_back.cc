#include "pipeline/held_back.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "core/backoff.h"

namespace relay {

namespace {

HeldBack::Behind behind_of(const PipelineSpec& spec) {
  if (spec.on_reject == OnReject::stop) return HeldBack::Behind::all;
  const bool keys = spec.ordered || spec.on_reject == OnReject::park_key;
  return keys ? HeldBack::Behind::same_key : HeldBack::Behind::nothing;
}

}  // namespace

HeldBack::HeldBack(const PipelineSpec& spec)
    : behind_(behind_of(spec)), retry_min_(spec.retry_min), retry_max_(spec.retry_max) {}

void HeldBack::note(std::span<const std::size_t> sent, std::span<const Outcome> outcomes,
                    SteadyClock::time_point now) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const Outcome& outcome = outcomes[i];
    if (outcome.was_refused()) {
      Wait& wait = waiting_[sent[i]];
      wait.due = now + delay_after(++wait.refusals);
    } else if (outcome.kind != Outcome::Kind::unknown && !waiting_.empty()) {
      waiting_.erase(sent[i]);
    }
  }
}

std::vector<std::size_t> HeldBack::sendable(const MessageBatch& batch,
                                            std::span<const std::size_t> pending,
                                            SteadyClock::time_point now) const {
  constexpr int kNotYet = std::numeric_limits<int>::max();
  std::vector<std::size_t> chosen;
  int least = kNotYet;
  // Of each key, what its messages up to here allow those that follow.
  std::unordered_map<std::string_view, int> keys;
  for (const std::size_t index : pending) {
    const auto wait = waiting_.find(index);
    int refusals = 0;
    if (wait != waiting_.end()) refusals = wait->second.due > now ? kNotYet : wait->second.refusals;
    if (behind_ != Behind::nothing) {
      const std::string_view key = behind_ == Behind::all ? "" : batch.messages[index].key;
      const auto before = keys.find(key);
      if (before != keys.end()) refusals = std::max(refusals, before->second);
      if (refusals > 0) keys.insert_or_assign(key, refusals);
    }
    if (refusals < least) {
      least = refusals;
      chosen.clear();
    }
    if (refusals == least && least != kNotYet) chosen.push_back(index);
  }
  return chosen;
}

SteadyClock::time_point HeldBack::next_due(SteadyClock::time_point now) const {
  auto due = SteadyClock::time_point::max();
  for (const auto& [index, wait] : waiting_) {
    if (wait.due > now) due = std::min(due, wait.due);
  }
  return due;
}

/// The same for all that were refused equally often: what was sent in one request is sent together
/// again.
std::chrono::milliseconds HeldBack::delay_after(int refusals) const {
  return doubled(retry_min_, retry_max_, refusals - 1);
}

}  // namespace relay
