// The dead letters that somebody wants sent again; the sender does it between two batches.
#include "pipeline/pipeline.h"

namespace relay {

namespace {

constexpr std::size_t kRetriesAtOnce = 100;

}  // namespace

void Pipeline::retry_dead_letters(std::stop_token stop) {
  Backoff pause = backoff();
  bool more = true;
  while (more) {
    if (!open_sink(stop)) return;
    const auto sent = retry_some(stop);
    if (sent) {
      more = *sent;
      if (pause.attempts() > 0) clear_trouble(Side::sender, kSinkTrouble);
    } else if (!in_trouble(Side::sender, kSinkTrouble, sent.error(), pause, stop)) {
      return;
    }
  }
  if (spec_.on_reject == OnReject::park_key) {
    insist(
        [this]() -> Result<void> {
          auto keys = dead_letters_->parked_keys();
          if (!keys) return fail(keys.error());
          parked_ = std::move(*keys);
          return {};
        },
        stop);
  }
}

/// Sends some of the dead letters that somebody wants sent again. True: there may be more.
Result<bool> Pipeline::retry_some(std::stop_token stop) {
  auto taken = dead_letters_->take_retries(kRetriesAtOnce);
  if (!taken) return fail(taken.error());
  if (taken->empty()) return false;
  std::vector<DeadLetter> letters;
  for (DeadLetter& letter : *taken) {
    if (const auto opened = spec_.seal.open(letter); opened) {
      letters.push_back(std::move(letter));
    } else if (auto noted = dead_letters_->failed_again(letter.dlq_id, opened.error()); !noted) {
      return fail(noted.error());
    }
  }
  if (letters.empty()) return true;
  std::vector<std::vector<Header>> headers(letters.size());
  std::vector<Message> messages;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    messages.push_back(letters[i].to_message(headers[i]));
  }
  const auto outcomes = sink_->deliver(messages, Deadline::after(kDeliveryTimeout), stop);
  SharedError trouble;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const std::int64_t id = letters[i].dlq_id;
    Result<void> noted;
    if (outcomes[i].kind == Outcome::Kind::rejected) {
      noted = dead_letters_->failed_again(id, *outcomes[i].error);
    } else if (outcomes[i].kind == Outcome::Kind::unknown) {
      trouble = outcomes[i].error;
    } else {
      metrics_->delivered.Increment();
      metrics_->dead_letters.Decrement();
      noted = dead_letters_->resolve(id);
    }
    if (!noted) return fail(noted.error());
  }
  if (trouble) {
    close_sink();
    return fail(*trouble);
  }
  return true;
}

}  // namespace relay
