#include "stream/receiver.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"
#include "stream/slot_keeper.h"
#include "stream/standbys.h"

namespace relay::stream {

using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kTimeout{30};
constexpr milliseconds kPatience{100};
constexpr milliseconds kReconnectPause{500};
constexpr milliseconds kTendEvery{20};
constexpr milliseconds kRecordEvery{100};
constexpr std::size_t kRecordAtOnce = 1000;
constexpr milliseconds kRemoveEvery{500};
/// The server forgets what was confirmed only now and then.
constexpr milliseconds kConfirmEvery{100};
constexpr milliseconds kStoreEvery{500};
constexpr milliseconds kWatchEvery{2000};
/// A session from which nothing is heard ends after wal_sender_timeout, a minute unless set.
constexpr milliseconds kReportEvery{1000};
constexpr std::chrono::seconds kReportTimeout{5};

}  // namespace

void Receiver::run(std::stop_token stop) {
  do {
    Result<void> done;
    try {
      done = connect(stop);
      if (done) {
        tell(std::nullopt);
        done = receive(stop);
      }
    } catch (const std::exception& exception) {
      done = fail(shortage::error_of(exception, "receiving"));
    }
    if (stop.stop_requested()) {
      finish();
      return;
    }
    if (!done) tell(done.error());
    if (assembler_) assembler_->session_ended();
    log_.reset();
  } while (pause(Deadline::after(kReconnectPause), stop));
}

/// What was settled until now does not come again. (After a failure it does.)
void Receiver::finish() {
  const auto now = SteadyClock::now();
  removed_at_ = {};
  stored_at_ = {};
  if (!store_ || (session_->ok() && !remove(now, {}))) return;
  if (log_ && log_->ok()) (void)report(now, true, {});
}

void Receiver::tell(std::optional<Error> trouble) {
  {
    const MutexLock lock(state_.mutex);
    state_.trouble = std::move(trouble);
  }
  state_.news.notify_all();
}

Result<void> Receiver::connect(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  if (!session_ || !session_->ok()) {
    store_.reset();
    // After a crash the server gives out again the xids of transactions whose ends it had not
    // written; a snapshot of before may see them as ended.
    snapshot_.drop();
    // The server forgets what the backlog records.
    auto session = Store::open_session(options_.database, deadline, stop);
    if (!session) return fail(session.error());
    session_ = std::move(*session);
    {
      const MutexLock lock(state_.mutex);
      ++state_.connections;
    }
    store_.emplace(*session_, Store::Key{options_.id, options_.owner});
    if (!assembler_) {
      if (auto claimed = store_->claim(deadline, stop); !claimed) return claimed;
    }
  }
  auto log = postgres::ReplicationConnection::open(options_.database, stop);
  if (!log) return fail(log.error());
  log_ = std::move(*log);
  std::int64_t last_n = 0;
  {
    const MutexLock lock(state_.mutex);
    last_n = received_n();
  }
  SlotKeeper keeper(*session_, *log_, *store_, options_.id, [&](const Error& waits) {
    tell(waits);
    return load(stop);
  });
  const auto slot = keeper.ready(last_n, decoding_failures_.hopeless(), stop);
  if (!slot) {
    // What was done before it failed may have changed the row, and the sessions may be on different
    // servers.
    must_load_ = true;
    store_.reset();
    session_.reset();
    return fail(slot.error());
  }
  must_load_ = must_load_ || slot->made || slot->timeline != timeline_;
  slot_ = slot->name;
  failover_ = slot->failover;
  if (slot->made) decoding_failures_.forget();
  {
    const MutexLock lock(state_.mutex);
    if (slot->lost) ++state_.recoveries;
    if (!slot->note.empty()) state_.note = slot->note;
  }
  if (must_load_) {
    if (auto loaded = load(stop); !loaded) return loaded;
    must_load_ = false;
    timeline_ = slot->timeline;
  }
  decoder_.emplace();
  reported_ = {};
  const std::vector<std::string> publications{slot->publication};
  auto started =
      log_->start(slot->name, {.publications = publications, .binary = true}, deadline, stop);
  if (!started) return fail(of_log(started.error()));
  return {};
}

/// An error of the session that reads the log, which is noted.
Error Receiver::of_log(Error error) {
  const MutexLock lock(state_.mutex);
  decoding_failures_.add(error, received_n());
  return error;
}

/// The last number that a transaction was given, one that was received in part included.
std::int64_t Receiver::received_n() const {
  return std::max(state_.flow.last_n(), assembler_ ? assembler_->last_n() : 0);
}

/// Begins with what is stored.
Result<void> Receiver::load(std::stop_token stop) {
  std::int64_t behind = 0;
  {
    const MutexLock lock(state_.mutex);
    behind = state_.flow.cursor().n;
  }
  auto stored = store_->load(behind, Deadline::after(kTimeout), std::move(stop));
  if (!stored) return fail(stored.error());
  snapshot_.drop();
  stored_ = {};
  {
    const MutexLock lock(state_.mutex);
    const auto last_n = std::max(stored->last_n, received_n());
    state_.flow.begin(last_n, stored->backlog_events);
    assembler_.emplace(std::move(stored->accounted), last_n);
    state_.loaded = true;
  }
  state_.news.notify_all();
  return {};
}

Result<void> Receiver::receive(std::stop_token stop) {
  while (!stop.stop_requested()) {
    bool must_report = false;
    if (wait_for_room(stop)) {
      auto event = log_->next(kPatience, stop);
      if (!event) return fail(of_log(event.error()));
      if (auto taken = take(*event, must_report); !taken) return taken;
    }
    if (auto tended = tend(must_report, stop); !tended) return tended;
  }
  return {};
}

/// False: there is none yet.
bool Receiver::wait_for_room(std::stop_token stop) {
  const MutexLock lock(state_.mutex);
  return state_.room.wait_for(state_.mutex, stop, kPatience, [&]() RELAY_REQUIRES(state_.mutex) {
    return state_.flow.has_room();
  });
}

Result<void> Receiver::take(const postgres::ReplicationConnection::Event& event,
                            bool& must_report) {
  if (const auto* data = std::get_if<postgres::ReplicationConnection::Data>(&event)) {
    return decode(data->message);
  }
  if (const auto* alive = std::get_if<postgres::ReplicationConnection::Keepalive>(&event)) {
    must_report = alive->reply_requested;
    if (!assembler_->within_transaction()) {
      const MutexLock lock(state_.mutex);
      state_.flow.passed(alive->server_end);
    }
  }
  return {};
}

Result<void> Receiver::decode(std::string_view message) {
  const auto decoded = decoder_->decode(message);
  if (!decoded) return fail(decoded.error());
  auto step = assembler_->take(*decoded);
  if (!step) return fail(step.error());
  if (std::holds_alternative<std::monostate>(*step)) return {};
  bool news = false;
  {
    const MutexLock lock(state_.mutex);
    const bool had_events = state_.flow.next() != Flow::From::nothing;
    if (const auto* one = std::get_if<Assembler::Event>(&*step)) {
      state_.flow.take(*one);
    } else if (const auto* end = std::get_if<Assembler::End>(&*step)) {
      state_.flow.end(*end, SteadyClock::now());
    } else {
      state_.flow.passed(std::get<Assembler::Passed>(*step).end);
    }
    news = !had_events && state_.flow.next() != Flow::From::nothing;
  }
  if (news) state_.news.notify_one();
  return {};
}

/// What is to be done now and then, while messages come.
Result<void> Receiver::tend(bool must_report, std::stop_token stop) {
  const auto now = SteadyClock::now();
  if (!must_report && now - tended_at_ < kTendEvery) return {};
  tended_at_ = now;
  if (auto done = record(now, stop); !done) return done;
  {
    const MutexLock lock(state_.mutex);
    state_.flow.switch_over(now, assembler_->within_transaction());
  }
  if (auto done = remove(now, stop); !done) return done;
  if (auto done = move_snapshot(now, stop); !done) return done;
  if (auto done = watch_standbys(now, stop); !done) return done;
  return report(now, must_report, std::move(stop));
}

Result<void> Receiver::record(SteadyClock::time_point now, std::stop_token stop) {
  std::vector<Transaction> transactions;
  {
    const MutexLock lock(state_.mutex);
    const auto waiting = state_.flow.unrecorded_count();
    if (waiting == 0 || (waiting < kRecordAtOnce && now - recorded_at_ < kRecordEvery)) return {};
    transactions = state_.flow.unrecorded();
  }
  auto recorded = store_->record(transactions, Deadline::after(kTimeout), std::move(stop));
  if (!recorded) return recorded;
  recorded_at_ = now;
  {
    const MutexLock lock(state_.mutex);
    state_.flow.recorded(transactions.back().n);
  }
  state_.news.notify_one();
  return {};
}

Result<void> Receiver::remove(SteadyClock::time_point now, std::stop_token stop) {
  if (now - removed_at_ < kRemoveEvery) return {};
  removed_at_ = now;
  std::optional<std::int64_t> n;
  {
    const MutexLock lock(state_.mutex);
    n = state_.flow.to_delete();
  }
  if (!n) return {};
  auto removed = store_->remove(*n, Deadline::after(kTimeout), std::move(stop));
  if (!removed) return removed;
  const MutexLock lock(state_.mutex);
  state_.flow.deleted(*n);
  return {};
}

Result<void> Receiver::move_snapshot(SteadyClock::time_point now, std::stop_token stop) {
  if (snapshot_.due(now)) {
    auto moment = store_->look(Deadline::after(kTimeout), stop);
    if (!moment) return fail(moment.error());
    // From 18 on a stream whose publication is gone goes on without its changes.
    if (!moment->published) {
      return fail(ErrorClass::transient, "no_publication", "the stream's publication was dropped",
                  "none is needed: it is made again, and what was missed is read from the table");
    }
    snapshot_.taken({std::move(moment->snapshot), moment->place}, now);
  }
  const SettledSnapshot::Candidate* candidate = nullptr;
  std::vector<Xid> also;
  {
    const MutexLock lock(state_.mutex);
    candidate = snapshot_.holds(state_.flow.ledger().accounted_to());
    if (candidate != nullptr) also = state_.flow.ledger().accounted_behind(candidate->place);
  }
  if (candidate == nullptr) return {};
  auto kept = store_->keep(candidate->snapshot, also, Deadline::after(kTimeout), std::move(stop));
  if (!kept) return kept;
  {
    const MutexLock lock(state_.mutex);
    state_.flow.ledger().forget_up_to(candidate->place);
  }
  snapshot_.drop();
  return {};
}

Result<void> Receiver::watch_standbys(SteadyClock::time_point now, std::stop_token stop) {
  if (now - watched_at_ < kWatchEvery) return {};
  watched_at_ = now;
  std::optional<Standbys> standbys;
  if (failover_) {
    auto found = look_at_standbys(*session_, slot_, Deadline::after(kTimeout), std::move(stop));
    if (!found) return fail(found.error());
    standbys = std::move(*found);
  }
  auto problem = standbys ? problem_of(*standbys) : std::nullopt;
  const std::string stream = std::to_string(options_.id);
  if (problem) {
    log::failure("failover", stream, *problem);
  } else {
    log::recovered("failover", stream);
  }
  const MutexLock lock(state_.mutex);
  state_.failover_problem = std::move(problem);
  state_.synchronising = standbys ? standbys->synchronising : 0;
  return {};
}

Result<void> Receiver::report(SteadyClock::time_point now, bool must, std::stop_token stop) {
  if (!must && now - reported_at_ < kConfirmEvery) return {};
  postgres::Lsn accounted;
  {
    const MutexLock lock(state_.mutex);
    accounted = state_.flow.ledger().accounted_to();
  }
  if (failover_) {
    if (auto done = store(accounted, now, stop); !done) return done;
    accounted = stored_;
  }
  if (!must && accounted == reported_ && now - reported_at_ < kReportEvery) return {};
  reported_at_ = now;
  reported_ = accounted;
  return log_->report(accounted, accounted, Deadline::after(kReportTimeout), std::move(stop));
}

/// A slot that standbys synchronise is confirmed only as far as the stream's row says. The row
/// comes to a standby with the log, so a promoted one can tell that its slot is not past what is
/// accounted for.
Result<void> Receiver::store(postgres::Lsn accounted, SteadyClock::time_point now,
                             std::stop_token stop) {
  if (accounted <= stored_ || now - stored_at_ < kStoreEvery) return {};
  auto done = store_->account(accounted, Deadline::after(kTimeout), std::move(stop));
  if (!done) return done;
  stored_ = accounted;
  stored_at_ = now;
  return {};
}

}  // namespace relay::stream
