#include "stream/stream_source.h"

#include <utility>

namespace relay::stream {

namespace {

constexpr std::chrono::seconds kTimeout{30};
/// The log brings events one by one. While there are many, they are taken together: otherwise each
/// of them would wake the reader and the sender.
constexpr std::chrono::microseconds kGatherFor{200};

}  // namespace

StreamSource::StreamSource(StreamOptions options)
    : options_(std::move(options)),
      state_(options_.spool),
      receiver_(options_, state_),
      maintenance_(options_) {}

StreamSource::~StreamSource() {
  close();
}

Result<void> StreamSource::open(std::stop_token stop) {
  if (!receiving_.joinable()) {
    receiving_ = std::jthread([this](std::stop_token ended) { receiver_.run(std::move(ended)); });
    maintaining_ =
        std::jthread([this](std::stop_token ended) { maintenance_.run(std::move(ended)); });
  }
  const MutexLock lock(state_.mutex);
  state_.news.wait_until(
      state_.mutex, stop, Deadline::after(kTimeout).at(),
      [&]() RELAY_REQUIRES(state_.mutex) { return state_.loaded || state_.trouble; });
  if (state_.loaded) return {};
  if (state_.trouble) return fail(state_.trouble->in_context("opening the stream"));
  return fail(ErrorClass::transient, "stream", "the stream could not be opened in time");
}

Result<RecordBatch> StreamSource::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  if (!receiving_.joinable()) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  RecordBatch batch;
  Backlog from;
  {
    const MutexLock lock(state_.mutex);
    state_.news.wait_until(state_.mutex, stop, deadline.at(), [&]() RELAY_REQUIRES(state_.mutex) {
      return state_.trouble || state_.flow.next() != Flow::From::nothing;
    });
    if (const auto due = taken_at_ + kGatherFor; SteadyClock::now() < due) {
      state_.news.wait_until(state_.mutex, stop, due, [&]() RELAY_REQUIRES(state_.mutex) {
        return state_.trouble || state_.flow.next() != Flow::From::queue;
      });
    }
    switch (state_.flow.next()) {
      case Flow::From::nothing:
        if (state_.trouble) return fail(state_.trouble->in_context("reading the stream"));
        return batch;
      case Flow::From::queue:
        state_.flow.take(limits, batch);
        taken_at_ = SteadyClock::now();
        underway_.push_back(
            {batch.records.back().position(), static_cast<std::int64_t>(batch.records.size())});
        break;
      case Flow::From::backlog:
        from = {state_.flow.cursor(), state_.flow.backlog_end(), state_.connections};
        break;
    }
  }
  if (!batch.empty()) {
    state_.room.notify_one();
  } else {
    auto read = read_backlog(from, limits, batch, Deadline::after(kTimeout), std::move(stop));
    if (!read) return fail(read.error().in_context("reading the backlog"));
  }
  give_keys(batch, options_.id);
  return batch;
}

Result<void> StreamSource::read_backlog(const Backlog& from, const ReadLimits& limits,
                                        RecordBatch& batch, Deadline deadline,
                                        std::stop_token stop) {
  if (!session_ || !session_->ok() || session_for_ != from.connection) {
    backlog_.reset();
    auto session = BacklogReader::open_session(options_.database, deadline, stop);
    if (!session) return fail(session.error());
    session_ = std::move(*session);
    session_for_ = from.connection;
    backlog_.emplace(*session_, options_.id);
  }
  const auto page = backlog_->read(from.cursor, limits, batch, deadline, std::move(stop));
  if (!page) return fail(page.error());
  const MutexLock lock(state_.mutex);
  if (state_.connections != from.connection) {
    batch = {};  // It may be of the server before.
    return {};
  }
  state_.flow.paged(page->last, page->events);
  if (page->at_end) state_.flow.backlog_read(from.end);
  if (!batch.empty()) underway_.push_back({batch.records.back().position(), page->events});
  return {};
}

Result<void> StreamSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(state_.mutex);
  state_.flow.settle(settled.id);
  while (!underway_.empty() && !(settled < underway_.front().last)) underway_.pop_front();
  return {};
}

std::optional<std::int64_t> StreamSource::lag() {
  const MutexLock lock(state_.mutex);
  std::int64_t events = state_.flow.waiting();
  for (const Underway& batch : underway_) events += batch.events;
  return events;
}

std::optional<EndReport> StreamSource::report() const {
  const MutexLock lock(state_.mutex);
  EndReport report;
  const bool spooling = state_.flow.spooling();
  report.state = spooling ? "spooling" : "live";
  report.problem = state_.failover_problem;
  report.numbers = {
      {"failover_active", "1 while events wait in the table, and not in the log",
       spooling ? 1. : 0.},
      {"backlog_events", "Events of the backlog that were not read yet",
       static_cast<double>(state_.flow.backlog_events())},
      {"log_held_bytes", "How much of the log the server keeps for events that are not settled",
       static_cast<double>(state_.flow.ledger().held())},
      {"slot_recoveries_total", "How often the replication slot was made anew",
       static_cast<double>(state_.recoveries)},
      {"synchronising_standbys", "Standbys that synchronise replication slots from the server",
       static_cast<double>(state_.synchronising)}};
  report.note = state_.note;
  return report;
}

void StreamSource::close() {
  receiving_.request_stop();
  maintaining_.request_stop();
  receiving_ = {};
  maintaining_ = {};
  backlog_.reset();
  session_.reset();
}

}  // namespace relay::stream
