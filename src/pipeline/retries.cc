// The dead letters that an operator wants sent again: the sender does it, in turn with its batches.
#include <algorithm>

#include "pipeline/pipeline.h"

namespace relay {

namespace {

constexpr std::size_t kRetriesAtOnce = 100;

Error behind_another(const std::string& key) {
  return {ErrorClass::rejected,
          "parked",
          "an earlier message with the key " + key + " is in the dead letters",
          "retry or discard the earlier dead letter first: this one follows it",
          {}};
}

}  // namespace

bool Pipeline::take_word_of_retries() {
  const std::lock_guard lock(mutex_);
  return std::exchange(retry_letters_, false);
}

/// One round: as many as may be sent together. Where more wait, the next round is due.
void Pipeline::retry_dead_letters(std::stop_token stop) {
  Backoff pause = backoff();
  while (may_go_on(stop) && wait_for_lease(stop) && open_sink(stop)) {
    auto sent = retry_some(stop);
    if (sent && spec_.on_reject == OnReject::park_key) {
      if (auto refreshed = refresh_parked(); !refreshed) sent = fail(refreshed.error());
    }
    if (sent) {
      if (pause.attempts() > 0) clear_trouble(Side::sender, kSinkTrouble);
      const std::lock_guard lock(mutex_);
      retry_letters_ = retry_letters_ || *sent;
      return;
    }
    if (!in_trouble(Side::sender, kSinkTrouble, sent.error(), pause, stop)) return;
  }
}

Result<void> Pipeline::refresh_parked() {
  auto keys = dead_letters_->parked_keys();
  if (!keys) return fail(keys.error());
  parked_ = std::move(*keys);
  return {};
}

/// Those of the dead letters to be sent again that may be sent now; no more than pace and rate
/// limit let pass together, so that what another owner or an operator does with the others still
/// counts.
Result<std::vector<DeadLetter>> Pipeline::take_retries() {
  std::size_t most = std::min(kRetriesAtOnce, pace_.allowed());
  if (spec_.rate_limit > 0) {
    most =
        std::clamp(static_cast<std::size_t>(spec_.rate_limit * kRateSlice), std::size_t{1}, most);
  }
  return dead_letters_->take_retries(most);
}

/// Sends some of the dead letters that an operator wants sent again. True: there may be more.
Result<bool> Pipeline::retry_some(std::stop_token stop) {
  auto taken = take_retries();
  if (!taken) return fail(taken.error());
  if (taken->empty()) return false;
  std::vector<DeadLetter> letters;
  for (DeadLetter& letter : *taken) {
    Result<void> ready = spec_.seal.open(letter);
    if (spec_.on_reject == OnReject::park_key) {
      if (letter.follows == DeadLetter::Follows::retried)
        continue;  // what comes before it is first
      if (letter.follows == DeadLetter::Follows::unresolved)
        ready = fail(behind_another(letter.key));
    }
    if (ready) {
      letters.push_back(std::move(letter));
    } else if (auto noted = dead_letters_->failed_again(letter.dlq_id, ready.error()); !noted) {
      return fail(noted.error());
    }
  }
  if (letters.empty()) return true;
  letters.resize(allowance(letters.size(), stop));
  // While it waited, another instance may have become the owner and sent them.
  if (letters.empty() || !hooks_.lease->holds()) return true;
  std::vector<std::vector<Header>> headers(letters.size());
  std::vector<Message> messages;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    messages.push_back(letters[i].to_message(headers[i]));
  }
  const auto began = SteadyClock::now();
  const auto outcomes = sink_->deliver(messages, Deadline::after(kDeliveryTimeout), stop);
  const auto settled = std::count_if(outcomes.begin(), outcomes.end(), [](const Outcome& outcome) {
    return outcome.kind != Outcome::Kind::unknown && outcome.kind != Outcome::Kind::rejected;
  });
  pace_.observe(messages.size(), static_cast<std::size_t>(settled), SteadyClock::now() - began);
  return settle_retries(letters, outcomes);
}

/// Notes what became of them. What is unknown stays to be sent again, its attempts as they were.
Result<bool> Pipeline::settle_retries(std::span<const DeadLetter> letters,
                                      std::span<const Outcome> outcomes) {
  SharedError trouble;
  const std::size_t before = delivered_;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const std::int64_t id = letters[i].dlq_id;
    Result<void> noted;
    if (outcomes[i].kind == Outcome::Kind::rejected) {
      metrics_->errors.Increment();
      noted = dead_letters_->failed_again(id, *outcomes[i].error);
    } else if (outcomes[i].kind == Outcome::Kind::unknown) {
      metrics_->errors.Increment();
      trouble = outcomes[i].error;
    } else {
      metrics_->delivered.Increment();
      metrics_->dead_letters.Decrement();
      ++delivered_;
      noted = dead_letters_->resolve(id);
    }
    if (!noted) return fail(noted.error());
  }
  if (delivered_ > before) note_rejections();
  if (trouble) {
    metrics_->retries.Increment();
    if (trouble->error_class != ErrorClass::throttled) close_sink();
    return fail(*trouble);
  }
  note_sink_answers();
  return true;
}

}  // namespace relay
