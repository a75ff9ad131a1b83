#include "backends/file/stdin_source.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "core/stop_event.h"

namespace relay::file {

namespace {

/// A process has one standard input.
std::atomic_flag input_is_taken = ATOMIC_FLAG_INIT;

std::string origin_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format("stdin:{}", std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

/// True: something can be read, the end included.
bool wait_for_input(Deadline deadline, const StopEvent& stop) {
  pollfd descriptors[] = {{STDIN_FILENO, POLLIN, 0}, {stop.fd(), POLLIN, 0}};
  const int ready = ::poll(descriptors, 2, static_cast<int>(deadline.left().count()));
  return ready > 0 && descriptors[0].revents != 0;
}

}  // namespace

StdinSource::StdinSource(LineRules rules, FieldMapping mapping)
    : rules_(std::move(rules)),
      mapping_(std::move(mapping)),
      shape_(std::make_shared<const TableShape>(TableShape{"stdin", {}})),
      origin_(origin_now()),
      lines_(STDIN_FILENO, 0, static_cast<std::size_t>(rules_.max_record_bytes)) {}

StdinSource::~StdinSource() {
  if (holds_input_) input_is_taken.clear();
}

Result<void> StdinSource::open(std::stop_token) {
  if (!holds_input_ && input_is_taken.test_and_set()) {
    return fail(ErrorClass::misconfigured, "input_taken", "another pipeline reads standard input",
                "only one pipeline can read it");
  }
  holds_input_ = true;
  const MutexLock lock(mutex_);
  given_ = 0;
  return {};
}

Result<RecordBatch> StdinSource::read(const ReadLimits& limits, Deadline deadline,
                                      std::stop_token stop) {
  RecordBatch batch;
  const StopEvent stopped(stop);
  while (!take_lines(batch, limits) && !stop.stop_requested() && !deadline.passed()) {
    if (ended_) {
      pollfd only_stop{stopped.fd(), POLLIN, 0};
      ::poll(&only_stop, 1, static_cast<int>(deadline.left().count()));
      break;
    }
    if (!wait_for_input(deadline, stopped)) break;
    const auto got = lines_.read_more();
    if (!got) return fail(got.error().in_context("standard input"));
    ended_ = *got == 0;
  }
  return batch;
}

/// Puts into the batch what was read before. True: that was something.
bool StdinSource::take_lines(RecordBatch& batch, const ReadLimits& limits) {
  const MutexLock lock(mutex_);
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    if (given_ == unsettled_.size()) {
      auto line = lines_.next();
      if (!line && ended_) line = lines_.rest();
      if (!line) break;
      if (!line->too_long && is_blank(line->text)) continue;
      unsettled_.push_back({++last_number_, std::string(line->text), line->too_long});
    }
    add(batch, unsettled_[given_]);
    ++given_;
  }
  return !batch.empty();
}

void StdinSource::add(RecordBatch& batch, const Kept& kept) {
  const Line line{kept.text, kept.number, kept.number, kept.too_long};
  const auto made_up_id = [&] {
    return fmt::format("{}{}:{}", rules_.id_scope, origin_, kept.number);
  };
  Record record = to_record(line, made_up_id, rules_, mapping_, batch.arena);
  record.id = kept.number;
  batch.add(std::move(record), shape_);
}

Result<void> StdinSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(mutex_);
  while (!unsettled_.empty() && unsettled_.front().number <= settled.id) {
    unsettled_.pop_front();
    if (given_ > 0) --given_;
  }
  return {};
}

std::optional<std::int64_t> StdinSource::lag() {
  const MutexLock lock(mutex_);
  return static_cast<std::int64_t>(unsettled_.size());
}

void StdinSource::close() {}

}  // namespace relay::file
