#include "stream/table_source.h"

#include <fmt/core.h>

#include <utility>
#include <vector>

#include "core/pause.h"
#include "stream/event_queue.h"

namespace relay::stream {

using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kTimeout{30};
/// The server sorts all events of a round before it sends the first one.
constexpr std::chrono::hours kRowTimeout{2};
/// A statement that waits for its rows to be taken holds its snapshot.
constexpr std::chrono::seconds kUnusedFor{10};
constexpr milliseconds kKeepEvery{500};

/// The backlog is that of the other reader, which counts it among what it has accounted for: it is
/// part of the first round behind that, and is deleted when this round is settled.
std::string of_table(std::string_view table) {
  return fmt::format(
      "select {} from pgstream.{} e where e.stream_id = $1::bigint "
      "and ((e.xid >= pg_snapshot_xmax($2::pg_snapshot) "
      "or e.xid = any (array(select pg_snapshot_xip($2::pg_snapshot)))) "
      "and e.xid <> all ((select s.settled_also from pgstream.streams s "
      "where s.id = $1::bigint)::xid8[]) "
      "or e.xid = any (array(select b.xid "
      "from pgstream.backlog b join pgstream.streams s on s.id = b.stream_id "
      "where s.id = $1::bigint and s.settled_snapshot::text = $2::pg_snapshot::text))) "
      "and pg_visible_in_snapshot(e.xid, $3::pg_snapshot) and e.seq > $4::bigint",
      kEventSql, table);
}

}  // namespace

TableSource::TableSource(StreamOptions options)
    : options_(std::move(options)), maintenance_(options_) {}

TableSource::~TableSource() {
  close();
}

Result<void> TableSource::open(std::stop_token stop) {
  auto opened = try_open(std::move(stop));
  // What is known of the rounds goes with the session.
  if (!opened) session_.reset();
  return opened;
}

Result<void> TableSource::try_open(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  store_.reset();
  under_way_ = false;
  auto rows = postgres::Connection::open(options_.database, stop);
  if (!rows) return fail(rows.error());
  rows_ = std::move(*rows);
  auto session = Store::open_session(options_.database, deadline, stop);
  if (!session) return fail(session.error());
  session_ = std::move(*session);
  store_.emplace(*session_, Store::Key{options_.id, options_.owner});
  if (!maintaining_.joinable()) {
    if (auto claimed = store_->claim(deadline, stop); !claimed) return claimed;
    maintaining_ =
        std::jthread([this](std::stop_token ended) { maintenance_.run(std::move(ended)); });
  }
  // After a crash the server gives out again the xids of transactions whose ends it had not
  // written. A snapshot of before may see them as ended, unless a commit after it was written: so
  // only stored ones outlive a session.
  auto place = store_->load_rounds(deadline, std::move(stop));
  if (!place) return fail(place.error());
  kept_ = *place;
  const MutexLock lock(mutex_);
  rounds_.emplace(std::move(*place), rounds_ ? rounds_->handed_out() : 0);
  return {};
}

Result<RecordBatch> TableSource::read(const ReadLimits& limits, Deadline deadline,
                                      std::stop_token stop) {
  RecordBatch batch;
  do {
    if (!is_open()) {
      if (auto opened = open(stop); !opened) return fail(opened.error());
    }
    auto more = keep(kKeepEvery, stop);
    if (more && !under_way_) more = begin(stop);
    if (more) more = read_rows(limits, batch, stop);
    if (!more) abandon();
    // What came before the error counts as handed out.
    if (!more && batch.empty()) return fail(more.error().in_context("reading pgstream.events"));
  } while (batch.empty() && !deadline.passed() &&
           pause(deadline.earlier(Deadline::after(options_.poll_interval)), stop));
  give_keys(batch, options_.id);
  return batch;
}

/// Sends the statement for the rest of the round, or for the next one.
Result<void> TableSource::begin(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  bool reading = false;
  {
    const MutexLock lock(mutex_);
    reading = rounds_->reading();
  }
  if (!reading) {
    auto moment = store_->look(deadline, std::move(stop));
    if (!moment) return fail(moment.error());
    const MutexLock lock(mutex_);
    rounds_->begin(std::move(moment->snapshot));
  }
  std::vector<postgres::Param> params{std::to_string(options_.id)};
  {
    const MutexLock lock(mutex_);
    params.insert(params.end(),
                  {rounds_->behind(), rounds_->next(), std::to_string(rounds_->seq())});
  }
  static const std::string sql =
      of_table("events") + " union all " + of_table("events_overflow") + " order by seq";
  auto sent = rows_->start(sql, params, postgres::Connection::Format::binary);
  if (sent) under_way_ = true;
  return sent;
}

Result<void> TableSource::read_rows(const ReadLimits& limits, RecordBatch& batch,
                                    std::stop_token stop) {
  used_at_ = SteadyClock::now();
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    const auto row = rows_->next_row(kRowTimeout, stop);
    if (!row) return fail(row.error());
    const MutexLock lock(mutex_);
    if (!*row) {
      under_way_ = false;
      rounds_->end();
      return {};
    }
    const auto event = event_of(row->get(), 0);
    if (!event) return fail(event.error());
    append(batch, *event, {rounds_->hand_out(event->seq)});
  }
  return {};
}

/// Ends the statement; another one goes on behind the last event that was handed out.
void TableSource::abandon() {
  if (under_way_) rows_->abandon(Deadline::after(kTimeout));
  under_way_ = false;
}

milliseconds TableSource::tend(std::stop_token stop) {
  if (!is_open()) return kKeepEvery;
  if (SteadyClock::now() - used_at_ > kUnusedFor) abandon();
  (void)keep(kKeepEvery, std::move(stop));
  return kKeepEvery;
}

/// Stores what is settled.
Result<void> TableSource::keep(milliseconds every, std::stop_token stop) {
  if (SteadyClock::now() - kept_at_ < every) return {};
  Rounds::Place settled;
  {
    const MutexLock lock(mutex_);
    settled = rounds_->settled();
  }
  if (settled == kept_) return {};
  auto kept = store_->keep(settled, Deadline::after(kTimeout), std::move(stop));
  if (!kept) return kept;
  kept_ = std::move(settled);
  kept_at_ = SteadyClock::now();
  return {};
}

Result<void> TableSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(mutex_);
  rounds_->settle(settled.id);
  return {};
}

std::optional<std::int64_t> TableSource::lag() {
  const MutexLock lock(mutex_);
  return rounds_ ? std::optional(rounds_->underway()) : std::nullopt;
}

void TableSource::close() {
  maintaining_.request_stop();
  // A stop while rows are waited for ends only their session.
  if (store_ && session_->ok()) (void)keep(milliseconds(0), {});
  maintaining_ = {};
  under_way_ = false;
  rows_.reset();
  store_.reset();
  session_.reset();
}

}  // namespace relay::stream
