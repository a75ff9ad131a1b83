#include "stream/flow.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "stream/assembler.h"
#include "stream/changes.h"

namespace relay::stream {
namespace {

namespace pgoutput = postgres::pgoutput;
using postgres::Lsn;
using std::chrono::milliseconds;

/// A table of events and the log of what was committed, as far as the stream sees them.
class Database {
 public:
  struct Committed {
    Xid xid;
    Lsn commit_record;
    Lsn end;
    std::vector<std::int64_t> events;  // by seq
  };
  struct Recorded {
    Xid xid;
    std::int64_t events;
  };

  std::vector<Committed> log;
  std::set<Xid> open;
  Xid next_xid = 3;
  std::uint64_t end = 1000;
  std::int64_t next_seq = 1;

  // What the stream stores.
  Lsn confirmed{1000};
  Lsn recorded{0};
  std::string snapshot = "3:3:";
  std::vector<Xid> also;
  std::map<std::int64_t, Recorded> backlog;
  std::int64_t last_n = 0;

  void begin() { open.insert(next_xid++); }
  void commit(Xid xid, int events) {
    Committed one{xid, Lsn{end}, Lsn{end + 10}, {}};
    for (int i = 0; i < events; ++i) one.events.push_back(next_seq++);
    end += 10;
    open.erase(xid);
    log.push_back(std::move(one));
  }
  const Committed& find(Xid xid) const {
    return *std::find_if(log.begin(), log.end(), [&](const auto& one) { return one.xid == xid; });
  }
  std::string present() const {
    return fmt::format("{}:{}:{}", open.empty() ? next_xid : *open.begin(), next_xid,
                       fmt::join(open, ","));
  }
};

/// The daemon, whose threads take their steps in any order. Stops at random.
class Daemon {
 public:
  explicit Daemon(Database& database)
      : database_(database),
        assembler_(before(database), database.last_n),
        flow_({milliseconds(5), 200, 6, 100000}) {
    flow_.begin(database.last_n, recorded_events(database));
    open_session();
  }

  /// Begins a session at what the server was told last.
  void open_session() {
    assembler_.session_ended();
    at_ = 0;
    while (at_ < database_.log.size() && database_.log[at_].end <= database_.confirmed) ++at_;
    step_ = 0;
    send(&changes::events());
  }

  /// Takes one message of the log.
  bool receive() {
    if (!flow_.has_room()) return false;
    if (at_ == database_.log.size()) {
      if (!assembler_.within_transaction()) flow_.passed(Lsn{database_.end});
      return false;
    }
    const Database::Committed& one = database_.log[at_];
    const auto size = one.events.size();
    if (step_ == 0) {
      send(pgoutput::Begin{one.commit_record, {}, static_cast<std::uint32_t>(one.xid)});
    } else if (step_ <= size) {
      insert(one.xid, one.events[step_ - 1]);
    } else {
      send(pgoutput::Commit{one.commit_record, one.end, {}});
      ++at_;
      step_ = 0;
      return true;
    }
    ++step_;
    return true;
  }

  void pass_time(int ms) { now_ += milliseconds(ms); }
  void switch_over() { flow_.switch_over(now_, assembler_.within_transaction()); }

  /// Takes what is to be recorded, or commits what was taken: the sink goes on meanwhile.
  void record(std::mt19937& random) {
    if (recording_.empty()) {
      recording_ = flow_.unrecorded();
      if (!recording_.empty()) recording_.resize(1 + random() % recording_.size());
      return;
    }
    for (const Transaction& one : recording_) {
      database_.backlog[one.n] = {one.xid, one.events};
    }
    database_.recorded = recording_.back().end;
    database_.last_n = recording_.back().n;
    flow_.recorded(recording_.back().n);
    recording_.clear();
    ++spooled;
  }

  void report() {
    database_.confirmed = std::max(database_.confirmed, flow_.ledger().accounted_to());
  }

  void read(std::size_t most) {
    RecordBatch batch;
    const auto next = flow_.next();
    if (next == Flow::From::queue) {
      flow_.take({most, 1u << 20}, batch);
    } else if (next == Flow::From::backlog) {
      Cursor last = flow_.cursor();
      const Cursor begin = last;
      for (const auto& [n, recorded] : database_.backlog) {
        if (n < begin.n || (n == begin.n && begin.whole())) continue;
        const auto& events = database_.find(recorded.xid).events;
        for (std::size_t i = 0; i < events.size(); ++i) {
          if (batch.records.size() == most) break;
          if (n == begin.n && events[i] <= begin.seq) continue;
          const auto ordinal = static_cast<std::int64_t>(i + 1);
          last = {n, i + 1 == events.size() ? 0 : ordinal, events[i]};
          const std::string payload = std::to_string(events[i]);
          EventRow row;
          row.id = changes::kId;
          row.payload = payload;
          append(batch, row, last);
        }
        if (batch.records.size() == most) break;
      }
      flow_.paged(last, static_cast<std::int64_t>(batch.records.size()));
      if (batch.records.size() < most) flow_.backlog_read(flow_.backlog_end());
    }
    for (const Record& record : batch.records) {
      handed_out_.push_back(
          {record.position(), std::stoll(std::string(std::get<Event>(record.content).payload))});
    }
  }

  /// The sink takes the next `most` events.
  void settle(std::size_t most, std::vector<std::int64_t>& delivered) {
    std::int64_t n = 0;
    for (; most > 0 && !handed_out_.empty(); --most) {
      delivered.push_back(handed_out_.front().second);
      n = handed_out_.front().first.id;
      handed_out_.erase(handed_out_.begin());
    }
    if (n > 0) flow_.settle(n);
  }

  void clean() {
    auto& backlog = database_.backlog;
    const auto n = flow_.to_delete();
    if (!n) return;
    backlog.erase(backlog.begin(), backlog.upper_bound(*n));
    flow_.deleted(*n);
  }

  void look_at_snapshot() {
    if (snapshot_.empty()) {
      snapshot_ = database_.present();
      snapshot_at_ = Lsn{database_.end};
    } else if (flow_.ledger().accounted_to() >= snapshot_at_) {
      database_.snapshot = std::exchange(snapshot_, {});
      database_.also = flow_.ledger().accounted_behind(snapshot_at_);
      flow_.ledger().forget_up_to(snapshot_at_);
    }
  }

  int spooled = 0;

  bool idle() const {
    return at_ == database_.log.size() && handed_out_.empty() && flow_.waiting() == 0 &&
           flow_.next() == Flow::From::nothing && database_.backlog.empty() && !flow_.spooling();
  }

 private:
  Database& database_;
  Assembler assembler_;
  Flow flow_;
  Flow::Time now_{};
  std::size_t at_ = 0;    // the transaction of the log that is sent
  std::size_t step_ = 0;  // of its messages
  std::vector<std::pair<Position, std::int64_t>> handed_out_;
  std::vector<Transaction> recording_;
  std::string snapshot_;
  Lsn snapshot_at_;

  static AccountedBefore before(const Database& database) {
    return {database.recorded, *Snapshot::parse(database.snapshot), database.also};
  }
  static std::int64_t recorded_events(const Database& database) {
    std::int64_t events = 0;
    for (const auto& [n, recorded] : database.backlog) events += recorded.events;
    return events;
  }

  void send(const pgoutput::Message& message) {
    auto step = assembler_.take(message);
    ASSERT_TRUE(step) << step.error().message;
    if (const auto* event = std::get_if<Assembler::Event>(&*step)) flow_.take(*event);
    if (const auto* end = std::get_if<Assembler::End>(&*step)) flow_.end(*end, now_);
    if (const auto* passed = std::get_if<Assembler::Passed>(&*step)) flow_.passed(passed->end);
  }

  void insert(Xid xid, std::int64_t seq) { send(changes::Inserted(xid, seq).message()); }
};

struct Outcome {
  int spooled = 0;
  std::vector<std::int64_t> committed;
  std::vector<std::int64_t> delivered;
};

struct Faults {
  bool kills = false;
  bool lost_sessions = false;
  bool outages = false;
};

Outcome run(std::uint32_t seed, Faults faults) {
  std::mt19937 random(seed);
  const auto chance = [&](unsigned of) { return random() % of == 0; };
  Database database;
  Outcome outcome;
  std::vector<Lsn> reported;
  auto daemon = std::make_unique<Daemon>(database);
  bool sink_down = false;
  for (int step = 0; step < 3000; ++step) {
    switch (random() % 12) {
      case 0:
        database.begin();
        break;
      case 1:
        if (!database.open.empty()) {
          auto xid = database.open.begin();
          std::advance(xid, random() % database.open.size());
          database.commit(*xid, static_cast<int>(random() % (chance(20) ? 20 : 4)));
        }
        break;
      case 2:
        daemon->pass_time(static_cast<int>(random() % 4));
        daemon->switch_over();
        break;
      case 3:
        daemon->record(random);
        break;
      case 4:
        daemon->report();
        break;
      case 5:
        daemon->read(1 + random() % 6);
        break;
      case 6:
        if (!sink_down) daemon->settle(1 + random() % 8, outcome.delivered);
        break;
      case 7:
        daemon->clean();
        break;
      case 8:
        daemon->look_at_snapshot();
        break;
      case 9:
        if (faults.outages && chance(10)) sink_down = !sink_down;
        break;
      default:
        daemon->receive();
    }
    if (faults.lost_sessions && chance(100)) daemon->open_session();
    if (faults.kills && chance(150)) {
      // A server that was killed too may know an older place only.
      if (!reported.empty() && chance(2)) database.confirmed = reported[random() % reported.size()];
      outcome.spooled += daemon->spooled;
      daemon = std::make_unique<Daemon>(database);
    }
    if (chance(40)) reported.push_back(database.confirmed);
  }
  for (int step = 0; step < 100000 && !daemon->idle(); ++step) {
    for (int i = 0; i < 3; ++i) daemon->receive();
    daemon->pass_time(1);
    daemon->switch_over();
    daemon->record(random);
    daemon->read(5);
    daemon->settle(10, outcome.delivered);
    daemon->clean();
  }
  EXPECT_TRUE(daemon->idle()) << seed;
  daemon->report();
  EXPECT_EQ(database.confirmed, Lsn{database.end}) << seed;
  outcome.spooled += daemon->spooled;
  for (const auto& one : database.log) {
    outcome.committed.insert(outcome.committed.end(), one.events.begin(), one.events.end());
  }
  return outcome;
}

std::vector<std::int64_t> first_deliveries(const std::vector<std::int64_t>& delivered) {
  std::set<std::int64_t> seen;
  std::vector<std::int64_t> first;
  for (const auto event : delivered) {
    if (seen.insert(event).second) first.push_back(event);
  }
  return first;
}

constexpr std::uint32_t kRuns = 1000;

TEST(Flow, HasReceivedNothingBeforeItBegins) {
  alignas(Flow) std::array<std::byte, sizeof(Flow)> memory;
  memory.fill(std::byte{0xff});
  Flow* const flow = new (memory.data()) Flow({});
  EXPECT_EQ(flow->last_n(), 0);
  EXPECT_FALSE(flow->to_delete());
  std::destroy_at(flow);
}

TEST(Flow, DeletesAgainWhatAPromotedServerMayStillHave) {
  Flow flow({});
  flow.begin(5, 0);
  flow.settle(5);
  EXPECT_EQ(flow.to_delete(), 5);
  flow.deleted(5);
  EXPECT_FALSE(flow.to_delete());
  flow.begin(5, 0);
  EXPECT_EQ(flow.to_delete(), 5);
}

TEST(Flow, GoesOnBehindATransactionThatDoesNotComeAgain) {
  Flow flow({});
  flow.begin(0, 0);
  EventRow row;
  row.id = "0123456789abcdef";
  row.payload = "{}";
  flow.take({1, 1, row});
  flow.take({1, 2, row});
  RecordBatch batch;
  flow.take({}, batch);
  EXPECT_EQ(batch.records.size(), 1u);
  flow.begin(1, 0);  // on a promoted server that never had it
  EXPECT_EQ(flow.next(), Flow::From::nothing);
  flow.take({2, 1, row});
  flow.take({2, 2, row});
  EXPECT_EQ(flow.next(), Flow::From::queue);
}

TEST(Flow, DeliversEachEventOnceInCommitOrder) {
  for (std::uint32_t seed = 0; seed < kRuns; ++seed) {
    const auto outcome = run(seed, {});
    ASSERT_EQ(outcome.delivered, outcome.committed) << seed;
  }
}

TEST(Flow, OutagesAndLostSessionsRepeatNothing) {
  int spooled = 0;
  for (std::uint32_t seed = 0; seed < kRuns; ++seed) {
    const auto outcome = run(seed, {.lost_sessions = true, .outages = true});
    ASSERT_EQ(outcome.delivered, outcome.committed) << seed;
    spooled += outcome.spooled;
  }
  EXPECT_GT(spooled, kRuns);
}

TEST(Flow, KillsLoseNothingAndKeepTheOrderOfFirstDeliveries) {
  int spooled = 0;
  for (std::uint32_t seed = 0; seed < kRuns; ++seed) {
    const auto outcome = run(seed, {.kills = true, .lost_sessions = true, .outages = true});
    ASSERT_EQ(first_deliveries(outcome.delivered), outcome.committed) << seed;
    spooled += outcome.spooled;
  }
  EXPECT_GT(spooled, kRuns);
}

}  // namespace
}  // namespace relay::stream
