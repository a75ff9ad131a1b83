#include "pipeline/committer.h"

#include <utility>

#include "core/log.h"

namespace relay {

Committer::Committer(const PipelineSpec& spec, Source& source, DeadLetterQueue& dead_letters,
                     PipelineMetrics& metrics, SharedState& shared, Recovery& recovery)
    : spec_(spec),
      source_(source),
      dead_letters_(dead_letters),
      metrics_(metrics),
      shared_(shared),
      recovery_(recovery) {}

bool Committer::acknowledge(const MessageBatch& batch, Settlement& settlement,
                            std::stop_token stop) {
  const auto progress = settlement.progress();
  const std::vector<DeadLetter> letters = letters_of(batch, settlement, progress);
  if (batch.records.is_replay() || progress.records == 0) {
    if (letters.empty()) return true;
    // No position moves: the letters are stored on their own.
    return insist([&] { return dead_letters_.store(letters); }, std::move(stop));
  }
  const Position position = batch.records.records[progress.records - 1].position();
  if (!commit(position, letters, std::move(stop))) return false;
  shared_.settled(position);
  return true;
}

/// Counts and logs the rejected messages that the position now passes. The dead letters to store;
/// none with `on_reject = skip`.
std::vector<DeadLetter> Committer::letters_of(const MessageBatch& batch,
                                              const Settlement& settlement,
                                              const Settlement::Progress& progress) {
  std::vector<DeadLetter> letters;
  if (progress.rejected.empty()) return letters;
  for (const std::size_t index : progress.rejected) {
    const Error& error = *settlement.error(index);
    metrics_.rejected.Increment();
    if (spec_.on_reject == OnReject::skip) {
      log::warn("skipped", spec_.name, "message {}: {}", batch.messages[index].id, error.message);
    } else {
      letters.push_back(DeadLetter::from(batch.messages[index], error));
      spec_.seal.close(letters.back());
    }
  }
  shared_.rejected(progress.rejected.size(), settlement.error(progress.rejected.back()));
  if (!letters.empty()) {
    log::failure("dead_letter", spec_.name, letters.front().error);
    metrics_.dead_letters.Increment(static_cast<double>(letters.size()));
  }
  return letters;
}

bool Committer::commit(const Position& position, std::span<const DeadLetter> letters,
                       std::stop_token stop) {
  std::span<const DeadLetter> with_position = letters;
  if (!letters.empty() && !source_.keeps_dead_letters()) {
    if (!insist([&] { return dead_letters_.store(letters); }, stop)) return false;
    with_position = {};
  }
  if (!insist([&] { return source_.acknowledge(position, with_position); }, std::move(stop))) {
    return false;
  }
  position_due_ = true;
  metrics_.position.Set(static_cast<double>(position.id));
  return true;
}

/// Tries until it succeeds. False: the pipeline is to stop.
bool Committer::insist(const std::function<Result<void>()>& operation, std::stop_token stop) {
  Backoff pause = recovery_.backoff();
  while (true) {
    const auto done = operation();
    if (done) {
      if (pause.attempts() > 0) recovery_.succeeded();
      return true;
    }
    if (!recovery_.wait_after(done.error(), pause, stop)) return false;
  }
}

void Committer::write_position(std::stop_token stop) {
  if (!std::exchange(position_due_, false)) return;
  const auto position = shared_.position_to_write();
  if (!position) return;
  insist([&] { return source_.acknowledge(*position, {}); }, std::move(stop));
}

void Committer::write_last_position() {
  if (!std::exchange(position_due_, false)) return;
  const auto position = shared_.position_to_write();
  if (!position) return;
  const auto written = source_.acknowledge(*position, {});
  if (written) return;
  // It costs a second delivery at worst: the next acknowledgement writes the same again.
  log::failure("position_not_written", spec_.name, written.error());
  if (const auto reason = end_of(written.error())) recovery_.end(*reason);
}

}  // namespace relay
