#pragma once

#include <cstddef>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/message.h"
#include "pipeline/settlement.h"
#include "pipeline/spec.h"

namespace relay {

/// The error of a message that waits behind an unresolved dead letter of its key.
Error parked_error(std::string_view key);

/// Keeps the order of each key where a rejected message holds back those that follow it
/// (`on_reject = park_key`; with other settings no key is parked). Pure; one thread.
class ParkedKeys {
 public:
  /// `stops_at_failure`: PipelineSpec.
  explicit ParkedKeys(OnReject on_reject, bool stops_at_failure = false)
      : on_reject_(on_reject), stops_at_failure_(stops_at_failure) {}

  /// The keys that have unresolved dead letters now.
  void replace(std::set<std::string> keys) { keys_ = std::move(keys); }

  /// Parks the keys of rejected messages.
  void note(std::span<const Message> messages, std::span<const Outcome> outcomes);

  /// Settles messages as rejected that follow a rejected one of their key, up to the first that may
  /// be sent. Returns the index of that message, from which the next call for this batch goes on;
  /// the first call for a batch begins at 0.
  std::size_t set_aside(const MessageBatch& batch, Settlement& settlement, std::size_t begin);

  /// Removes those messages whose keys are parked.
  void leave_out(const MessageBatch& batch, std::vector<std::size_t>& pending) const;

  /// How many of the sendable pending messages, from the first, the sink may have at once. Where a
  /// rejected message holds others back, these wait until its outcome is known.
  std::size_t sent_together(const MessageBatch& batch, const Settlement& settlement,
                            std::span<const std::size_t> sendable) const;

 private:
  std::size_t sent_until_a_stop(const MessageBatch& batch,
                                std::span<const std::size_t> sendable) const;

  const OnReject on_reject_;
  const bool stops_at_failure_;
  std::set<std::string> keys_;
};

}  // namespace relay
