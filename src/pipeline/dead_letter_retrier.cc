#include "pipeline/dead_letter_retrier.h"

#include <cstdint>
#include <utility>

#include "core/log.h"

namespace relay {

namespace {

constexpr std::size_t kRetriesAtOnce = 100;

}  // namespace

DeadLetterRetrier::DeadLetterRetrier(const PipelineSpec& spec, DeadLetterQueue& dead_letters,
                                     GuardedSink& sink, ParkedKeys& parked,
                                     PipelineMetrics& metrics, SharedState& shared,
                                     Recovery& recovery)
    : spec_(spec),
      dead_letters_(dead_letters),
      sink_(sink),
      parked_(parked),
      metrics_(metrics),
      shared_(shared),
      recovery_(recovery) {}

void DeadLetterRetrier::run(std::stop_token stop) {
  Backoff pause = recovery_.backoff();
  while (shared_.wait_while_paused(stop) && sink_.wait_for_lease(stop) && sink_.open(stop)) {
    auto more = retry_some(stop);
    if (more && spec_.on_reject == OnReject::park_key) {
      if (auto refreshed = refresh_parked(); !refreshed) more = fail(refreshed.error());
    }
    if (more) {
      if (pause.attempts() > 0) recovery_.succeeded();
      if (*more) shared_.request_retries();
      return;
    }
    if (!recovery_.wait_after(more.error(), pause, stop)) return;
  }
}

Result<void> DeadLetterRetrier::refresh_parked() {
  auto keys = dead_letters_.parked_keys();
  if (!keys) return fail(keys.error());
  parked_.replace(std::move(*keys));
  return {};
}

/// True: there may be more.
Result<bool> DeadLetterRetrier::retry_some(std::stop_token stop) {
  // Takes no more than may be sent together: until the others are taken, the operator may still
  // discard them, and another owner may send them.
  auto taken = dead_letters_.take_retries(sink_.most_together(kRetriesAtOnce));
  if (!taken) return fail(taken.error());
  if (taken->empty()) return false;
  auto letters = ready(std::move(*taken));
  if (!letters) return fail(letters.error());
  if (letters->empty()) return true;
  letters->resize(sink_.allowance(letters->size(), stop));
  // While it waited, another instance may have become the owner and sent them.
  if (letters->empty() || !sink_.lease_holds()) return true;
  return send(*letters, std::move(stop));
}

/// Those that may be sent now, with their secrets. What cannot be sent is marked as failed again.
Result<std::vector<DeadLetter>> DeadLetterRetrier::ready(std::vector<DeadLetter> taken) {
  std::vector<DeadLetter> letters;
  for (DeadLetter& letter : taken) {
    Result<void> opened = spec_.seal.open(letter);
    if (spec_.on_reject == OnReject::park_key) {
      if (letter.follows == DeadLetter::Follows::retried) continue;  // the earlier one goes first
      if (letter.follows == DeadLetter::Follows::unresolved) {
        opened = fail(parked_error(letter.key));
      }
    }
    if (opened) {
      letters.push_back(std::move(letter));
    } else if (auto noted = dead_letters_.failed_again(letter.dlq_id, opened.error()); !noted) {
      return fail(noted.error());
    }
  }
  return letters;
}

Result<bool> DeadLetterRetrier::send(std::span<const DeadLetter> letters, std::stop_token stop) {
  std::vector<std::vector<Header>> headers(letters.size());
  std::vector<Message> messages;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    messages.push_back(letters[i].to_message(headers[i]));
  }
  const auto delivery = sink_.deliver(messages, stop);
  if (delivery.summary.settled > 0) shared_.dead_letters_delivered();
  if (auto noted = note(letters, delivery.outcomes); !noted) return fail(noted.error());
  if (const SharedError& halts = delivery.summary.halts) {
    log::failure("stopped", spec_.name, *halts);
    return shared_.halt(*halts, std::move(stop));
  }
  if (const SharedError& unknown = delivery.summary.unknown) {
    metrics_.retries.Increment();
    sink_.failed(*unknown);
    return fail(*unknown);
  }
  sink_.answered();
  return true;
}

/// Notes what became of them. A letter that is refused has had its try, also where another one
/// might succeed: the pipeline goes on, and the operator decides again. A letter whose outcome is
/// unknown stays to be sent again, its attempts as they were.
Result<void> DeadLetterRetrier::note(std::span<const DeadLetter> letters,
                                     std::span<const Outcome> outcomes) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const std::int64_t id = letters[i].dlq_id;
    Result<void> noted;
    if (outcomes[i].kind == Outcome::Kind::rejected || outcomes[i].was_refused()) {
      metrics_.errors.Increment();
      noted = dead_letters_.failed_again(id, *outcomes[i].error);
    } else if (outcomes[i].kind == Outcome::Kind::unknown) {
      metrics_.errors.Increment();
    } else {
      metrics_.delivered.Increment();
      metrics_.dead_letters.Decrement();
      noted = dead_letters_.resolve(id);
    }
    if (!noted) return noted;
  }
  return {};
}

}  // namespace relay
