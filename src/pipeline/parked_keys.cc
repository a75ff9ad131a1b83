#include "pipeline/parked_keys.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

namespace relay {

Error parked_error(std::string_view key) {
  return {ErrorClass::rejected,
          "parked",
          fmt::format("an earlier message with the key {} is in the dead letters", key),
          "retry or discard the earlier dead letter first: this one follows it",
          {}};
}

void ParkedKeys::note(std::span<const Message> messages, std::span<const Outcome> outcomes) {
  if (on_reject_ != OnReject::park_key) return;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i].kind == Outcome::Kind::rejected) keys_.emplace(messages[i].key);
  }
}

std::size_t ParkedKeys::set_aside(const MessageBatch& batch, Settlement& settlement,
                                  std::size_t begin) {
  if (on_reject_ != OnReject::park_key) return begin;
  std::vector<Outcome> parked;  // of the first pending messages
  auto next = settlement.pending().begin();
  std::size_t index = begin;
  for (; index < batch.messages.size(); ++index) {
    const Message& message = batch.messages[index];
    if (message.refused) {
      keys_.emplace(message.key);
    } else if (next != settlement.pending().end() && *next == index) {
      if (!keys_.contains(std::string(message.key))) break;
      parked.push_back(Outcome::rejected(share(parked_error(message.key))));
      ++next;
    }
  }
  settlement.record(parked);
  return index;
}

void ParkedKeys::leave_out(const MessageBatch& batch, std::vector<std::size_t>& pending) const {
  if (keys_.empty()) return;
  std::erase_if(pending, [&](std::size_t index) {
    return keys_.contains(std::string(batch.messages[index].key));
  });
}

std::size_t ParkedKeys::sent_together(const MessageBatch& batch, const Settlement& settlement,
                                      std::span<const std::size_t> sendable) const {
  if (on_reject_ == OnReject::stop) return sent_until_a_stop(batch, sendable);
  if (on_reject_ != OnReject::park_key) return sendable.size();
  std::set<std::string_view> keys;
  std::size_t count = 0;
  for (std::size_t index = settlement.pending().front(); index < batch.messages.size(); ++index) {
    const Message& message = batch.messages[index];
    const bool is_sendable = count < sendable.size() && sendable[count] == index;
    if (!is_sendable && !message.refused) continue;
    if (keys_.contains(std::string(message.key)) || !keys.insert(message.key).second) break;
    if (is_sendable) ++count;
  }
  return count;
}

/// Nothing is sent behind a message that may stop the pipeline.
std::size_t ParkedKeys::sent_until_a_stop(const MessageBatch& batch,
                                          std::span<const std::size_t> sendable) const {
  if (!stops_at_failure_) return std::min<std::size_t>(1, sendable.size());
  const auto refused = std::ranges::find_if(
      sendable, [&](std::size_t index) { return batch.messages[index].refused != nullptr; });
  return static_cast<std::size_t>(refused - sendable.begin());
}

}  // namespace relay
