// The sender side of Pipeline: delivers and settles.
#include <fmt/core.h>

#include <algorithm>
#include <exception>

#include "core/log.h"
#include "core/shortage.h"
#include "pipeline/pipeline.h"

namespace relay {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kFlushAfter{50};
constexpr milliseconds kLeaseCheck{10};

Timestamp now() {
  return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}

Position position_of(const Record& record) {
  return Position{record.id, record.row, std::string(record.mark)};
}

SharedError parked_error(std::string_view key) {
  return std::make_shared<Error>(
      Error{ErrorClass::rejected,
            "parked",
            fmt::format("an earlier message with the key {} is in the dead letters", key),
            "retry or discard the earlier dead letter first: this one follows it",
            {}});
}

}  // namespace

void Pipeline::run_sender(std::stop_token stop) {
  try {
    send_loop(stop);
  } catch (const std::exception& exception) {
    const Error error = shortage::error_of(exception, "delivering");
    log::failure(kSinkTrouble, spec_.name, error);
    end_by(error);
  }
  sink_->close();
  std::unique_lock lock(mutex_);
  // A pipeline that sleeps is not disconnected: its last attempt succeeded.
  if (!asleep_) metrics_->sink_connected.Set(0);
  sink_open_ = false;
  changed_.wait(lock, [this] { return reader_done_; });
  lock.unlock();
  // Given up: what is not written yet is delivered again.
  if (!stop.stop_requested()) flush_position();
  source_->close();
  lock.lock();
  if (!asleep_) metrics_->source_connected.Set(0);
  queue_.clear();
  in_flight_ = 0;
  source_open_ = false;
  sender_done_ = true;
  rests_ = asleep_;
  note_state_locked();
  lock.unlock();
  changed_.notify_all();
}

bool Pipeline::open_sink(std::stop_token stop) {
  Backoff pause = reconnect_backoff();
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (sink_open_) return true;
      if (stopping_) return false;
    }
    if (!wait_for_lease(stop)) return false;
    const auto opened = sink_->open(stop);
    if (opened) {
      // After a failed delivery only another one shows whether the sink takes messages again.
      if (!delivery_failed_) metrics_->sink_connected.Set(1);
      {
        const std::lock_guard lock(mutex_);
        sink_open_ = true;
      }
      changed_.notify_all();
      // What a delivery has failed by, the next one shows to be gone.
      if (pause.attempts() > 0) clear_trouble(Side::sender, kSinkTrouble);
      return true;
    }
    metrics_->errors.Increment();
    metrics_->sink_connected.Set(0);
    if (!in_trouble(Side::sender, kSinkTrouble, opened.error(), pause, stop)) return false;
  }
}

/// Waits while this instance may send nothing. False: the pipeline is to stop.
bool Pipeline::wait_for_lease(std::stop_token stop) {
  while (!hooks_.lease->holds()) {
    if (!wait_for(kLeaseCheck, stop)) return false;
  }
  return true;
}

void Pipeline::send_loop(std::stop_token stop) {
  bool look_for_retries = false;
  while (open_sink(stop)) {
    std::optional<MessageBatch> batch;
    {
      std::unique_lock lock(mutex_);
      const auto ready = [this] {
        return stopping_ || asleep_ ||
               (!paused_ && !halted_ && (!queue_.empty() || retry_letters_));
      };
      if (position_due_) {
        changed_.wait_for(lock, stop, kFlushAfter, ready);
      } else {
        changed_.wait(lock, stop, ready);
      }
      if (stopping_ || asleep_ || stop.stop_requested()) return;
      if (paused_ || halted_) continue;
      // Batches and dead letters in turn, where both wait.
      look_for_retries = retry_letters_ && !(look_for_retries && !queue_.empty());
      if (look_for_retries) {
        retry_letters_ = false;
      } else {
        batch = queue_.pop();
      }
    }
    changed_.notify_all();
    if (look_for_retries) {
      retry_dead_letters(stop);
    } else if (batch) {
      deliver_batch(std::move(*batch), stop);
    } else {
      write_position_due(stop);
    }
  }
}

void Pipeline::deliver_batch(MessageBatch batch, std::stop_token stop) {
  Settlement settlement(batch.messages, batch.records.records.size(),
                        spec_.on_reject == OnReject::stop);
  Backoff pause = backoff();
  bool going = true;
  delivered_ = rejected_ = 0;
  rejection_.reset();
  do {
    park(batch, settlement);
    going = settlement.done() ||
            (may_go_on(stop) && open_sink(stop) && deliver_round(batch, settlement, pause, stop));
    going = acknowledge(batch, settlement, stop) && going;
    // A batch may take long. (Keys that are parked change between batches only.)
    if (going && !settlement.done() && spec_.on_reject != OnReject::park_key &&
        take_word_of_retries()) {
      retry_dead_letters(stop);
    }
    if (going && !settlement.done() && take_more(batch)) {
      settlement.extend(batch.messages, batch.records.records.size());
    }
  } while (going && !settlement.done());
  note_rejections();
  {
    const std::lock_guard lock(mutex_);
    in_flight_ -= std::min(in_flight_, batch.records.records.size());
    note_state_locked();
  }
  changed_.notify_all();
}

/// Puts what was read meanwhile behind a batch, while the sink takes nothing of it: the sink may
/// need other messages to tell whether it is the fault of these.
bool Pipeline::take_more(MessageBatch& batch) {
  {
    const std::lock_guard lock(mutex_);
    if (sink_takes_ || !queue_.append_to(batch)) return false;
  }
  changed_.notify_all();
  return true;
}

/// Between two rounds of a batch: waits while the pipeline is paused. False: it is to stop, and
/// what was not sent yet is left to the next owner.
bool Pipeline::may_go_on(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [this] { return stopping_ || !paused_; });
  return !stopping_ && !stop.stop_requested();
}

/// Sets messages aside that follow a rejected one of their key, up to the first that may be sent.
void Pipeline::park(const MessageBatch& batch, Settlement& settlement) {
  if (spec_.on_reject != OnReject::park_key) return;
  for (std::size_t index = 0; index < batch.messages.size(); ++index) {
    const Message& message = batch.messages[index];
    const std::string key(message.key);
    if (message.refused) {
      parked_.insert(key);
    } else if (!settlement.done() && settlement.pending().front() == index) {
      if (!parked_.contains(key)) return;
      settlement.reject(index, parked_error(key));
    }
  }
}

/// How many pending messages, from the first, the sink may have at once: where a rejected one holds
/// others back, these wait until it is known how it fared.
std::size_t Pipeline::sent_together(const MessageBatch& batch, const Settlement& settlement) const {
  const auto& pending = settlement.pending();
  if (spec_.on_reject == OnReject::stop) return std::min<std::size_t>(1, pending.size());
  if (spec_.on_reject != OnReject::park_key) return pending.size();
  std::set<std::string_view> keys;
  std::size_t count = 0;
  for (std::size_t index = pending.front(); index < batch.messages.size(); ++index) {
    const Message& message = batch.messages[index];
    const bool is_pending = count < pending.size() && pending[count] == index;
    if (!is_pending && !message.refused) continue;
    if (parked_.contains(std::string(message.key)) || !keys.insert(message.key).second) break;
    if (is_pending) ++count;
  }
  return count;
}

/// The next pending messages to send, in order; without copying where none lies between them.
std::span<const Message> Pipeline::sendable(const MessageBatch& batch, const Settlement& settlement,
                                            std::vector<Message>& copies, std::stop_token stop) {
  const auto& pending = settlement.pending();
  const std::size_t wanted = std::min(sent_together(batch, settlement), pace_.allowed());
  const std::size_t count = allowance(wanted, stop);
  if (count == 0) return {};
  const std::size_t first = pending.front();
  if (pending[count - 1] - first == count - 1) {
    return std::span(batch.messages).subspan(first, count);
  }
  copies.reserve(count);
  for (std::size_t i = 0; i < count; ++i) copies.push_back(batch.messages[pending[i]]);
  return copies;
}

/// Sends what is pending once. False: the pipeline is to stop.
bool Pipeline::deliver_round(const MessageBatch& batch, Settlement& settlement, Backoff& pause,
                             std::stop_token stop) {
  if (!wait_for_lease(stop)) return false;
  const SharedError& refused = batch.messages[settlement.pending().front()].refused;
  if (refused) return halt(*refused, stop);
  std::vector<Message> copies;
  const auto messages = sendable(batch, settlement, copies, stop);
  if (messages.empty()) return false;

  const auto began = SteadyClock::now();
  const auto outcomes = sink_->deliver(messages, Deadline::after(kDeliveryTimeout), stop);
  const auto took = SteadyClock::now() - began;

  SharedError trouble;
  SharedError rejection;
  std::size_t failed = 0;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const Outcome& outcome = outcomes[i];
    if (outcome.kind == Outcome::Kind::unknown || outcome.kind == Outcome::Kind::rejected) {
      SharedError& first = outcome.kind == Outcome::Kind::unknown ? trouble : rejection;
      if (!first) first = outcome.error;
      ++failed;
      if (outcome.kind == Outcome::Kind::rejected) parked_.emplace(messages[i].key);
    }
  }
  const std::size_t settled = outcomes.size() - failed;
  settlement.record(outcomes);
  pace_.observe(messages.size(), settled, took);
  note_sink_takes(!trouble || settled > 0);
  metrics_->errors.Increment(static_cast<double>(failed));
  metrics_->observe_delivery(messages, outcomes, took, now());
  delivered_ += settled;
  if (settled > 0) note_rejections();
  if (trouble) return recover(*trouble, settled > 0, pause, stop);
  note_sink_answers();
  if (rejection && spec_.on_reject == OnReject::stop) return halt(*rejection, stop);
  clear_trouble(Side::sender, kSinkTrouble);
  return true;
}

void Pipeline::note_sink_takes(bool takes) {
  {
    const std::lock_guard lock(mutex_);
    if (sink_takes_ == takes) return;
    sink_takes_ = takes;
  }
  changed_.notify_all();
}

/// Says whether the batch that is worked on brought the sink anything.
void Pipeline::note_rejections() {
  const std::lock_guard lock(mutex_);
  rejections_.note(delivered_, rejected_, rejection_, std::chrono::system_clock::now());
}

void Pipeline::note_sink_answers() {
  delivery_failed_ = false;
  metrics_->sink_connected.Set(1);
}

/// After an unknown outcome: waits, with a fresh connection where the old one may be the cause.
bool Pipeline::recover(const Error& error, bool progressed, Backoff& pause, std::stop_token stop) {
  metrics_->retries.Increment();
  if (progressed) pause.reset();
  if (error.error_class != ErrorClass::throttled) close_sink();
  return in_trouble(Side::sender, kSinkTrouble, error, pause, stop);
}

void Pipeline::close_sink() {
  sink_->close();
  delivery_failed_ = true;
  metrics_->sink_connected.Set(0);
  const std::lock_guard lock(mutex_);
  sink_open_ = false;
}

/// `on_reject = stop`: waits until somebody resumes the pipeline, then the message is sent again.
bool Pipeline::halt(const Error& error, std::stop_token stop) {
  log::failure("stopped", spec_.name, error);
  std::unique_lock lock(mutex_);
  trouble_[static_cast<int>(Side::sender)] = error;
  halted_ = true;
  note_state_locked();
  changed_.wait(lock, stop, [this] { return stopping_ || !halted_; });
  trouble_[static_cast<int>(Side::sender)].reset();
  note_state_locked();
  return !stopping_ && !stop.stop_requested();
}

/// Moves the position behind what is settled. False: the pipeline is to stop.
bool Pipeline::acknowledge(const MessageBatch& batch, Settlement& settlement,
                           std::stop_token stop) {
  const auto progress = settlement.progress();
  std::vector<DeadLetter> letters;
  for (const std::size_t index : progress.rejected) {
    const Error& error = *settlement.error(index);
    metrics_->rejected.Increment();
    ++rejected_;
    rejection_ = settlement.error(index);
    if (spec_.on_reject == OnReject::skip) {
      log::warn("skipped", spec_.name, "message {}: {}", batch.messages[index].id, error.message);
    } else {
      letters.push_back(DeadLetter::from(batch.messages[index], error));
      spec_.seal.close(letters.back());
    }
  }
  if (!letters.empty()) {
    log::failure("dead_letter", spec_.name, letters.front().error);
    metrics_->dead_letters.Increment(static_cast<double>(letters.size()));
  }
  const bool replay = batch.records.is_replay();
  if (replay || progress.records == 0) {
    if (letters.empty()) return true;
    // Nothing to pass with: the letters are stored on their own, at the position that stands.
    const auto store = [&] { return dead_letters_->store(letters); };
    return insist(store, stop);
  }
  const Position position = position_of(batch.records.records[progress.records - 1]);
  if (!commit(position, letters, stop)) return false;
  const std::lock_guard lock(mutex_);
  position_ = position;
  set_progress();
  return true;
}

/// Tries until it succeeds: nothing goes on while dead letters or a position cannot be written.
bool Pipeline::insist(const std::function<Result<void>()>& operation, std::stop_token stop) {
  Backoff pause = backoff();
  while (true) {
    const auto done = operation();
    if (done) {
      if (pause.attempts() > 0) clear_trouble(Side::sender, kSinkTrouble);
      return true;
    }
    if (!in_trouble(Side::sender, kSinkTrouble, done.error(), pause, stop)) return false;
  }
}

bool Pipeline::commit(const Position& position, std::span<const DeadLetter> letters,
                      std::stop_token stop) {
  std::span<const DeadLetter> with_position = letters;
  if (!letters.empty() && !source_->keeps_dead_letters()) {
    if (!insist([&] { return dead_letters_->store(letters); }, stop)) return false;
    with_position = {};
  }
  if (!insist([&] { return source_->acknowledge(position, with_position); }, stop)) return false;
  position_due_ = true;
  metrics_->position.Set(static_cast<double>(position.id));
  return true;
}

/// Writes the position that an acknowledgement left to be written: what is settled stays settled,
/// and a position that cannot be written is trouble, also where nothing comes behind it.
void Pipeline::write_position_due(std::stop_token stop) {
  if (!position_due_) return;
  position_due_ = false;
  Position position;
  {
    const std::lock_guard lock(mutex_);
    if (fenced_) return;
    position = position_;
  }
  insist([&] { return source_->acknowledge(position, {}); }, stop);
}

/// The same for a pipeline that has been given up, once.
void Pipeline::flush_position() {
  if (!position_due_) return;
  position_due_ = false;
  Position position;
  {
    const std::lock_guard lock(mutex_);
    if (fenced_) return;
    position = position_;
  }
  // A failure costs a second delivery at worst: the next acknowledgement writes the same again.
  const auto flushed = source_->acknowledge(position, {});
  if (!flushed) log::failure("position_not_written", spec_.name, flushed.error());
  if (!flushed && flushed.error().error_class == ErrorClass::fenced) enter_fenced(flushed.error());
}

/// How many of `wanted` messages the rate limit lets pass now; waits until it is at least one.
std::size_t Pipeline::allowance(std::size_t wanted, std::stop_token stop) {
  if (spec_.rate_limit <= 0) return wanted;
  const auto present = SteadyClock::now();
  if (next_send_ > present) {
    if (!wait_for(std::chrono::ceil<milliseconds>(next_send_ - present), stop)) return 0;
  }
  const auto slice = static_cast<std::size_t>(std::max(1.0, spec_.rate_limit * kRateSlice));
  const std::size_t count = std::min(wanted, slice);
  const auto cost = std::chrono::duration<double>(static_cast<double>(count) / spec_.rate_limit);
  next_send_ = std::max(next_send_, SteadyClock::now()) +
               std::chrono::duration_cast<SteadyClock::duration>(cost);
  return count;
}

}  // namespace relay
