#include "stream/backlog_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "postgres/byte_reader.h"

namespace relay::stream {

namespace {

constexpr std::size_t kMostEntries = 10000;
/// So many events one statement brings: few enough that its snapshot is not held for long.
constexpr std::int64_t kMostEvents = 50000;
constexpr std::chrono::seconds kRowTimeout{60};

/// The rows come while they are looked up: a sort of all of them would first read them all. Each
/// transaction is looked up in the order of n, and brings its events in their order. (What parallel
/// workers bring, the server might sort by n alone: see `open_session`.)
std::string of_many() {
  const auto of_table = [](std::string_view table) {
    return fmt::format(
        "select {} from pgstream.{} e where e.xid = b.xid and e.stream_id = b.stream_id", kEventSql,
        table);
  };
  return fmt::format(
      "select b.n, e.* from (select b.n, b.xid, b.stream_id from pgstream.backlog b "
      "where b.stream_id = $1::bigint and b.n between $2::bigint and $3::bigint order by b.n) b "
      "cross join lateral ({} union all {} order by seq) e order by b.n",
      of_table("events"), of_table("events_overflow"));
}

std::string of_one(std::string_view table) {
  return fmt::format(
      "select $2::bigint as n, {} from pgstream.{} e "
      "where e.xid = $3::xid8 and e.stream_id = $1::bigint and e.seq > $4::bigint",
      kEventSql, table);
}

Error missing(const Transaction& entry) {
  return misconfigured(
      "events_missing",
      fmt::format("transaction {} of the backlog (xid {}) has fewer events in pgstream.events than "
                  "were recorded",
                  entry.n, entry.xid),
      "restore them; or DELETE the transaction FROM pgstream.backlog, and they are given up");
}

}  // namespace

Result<std::unique_ptr<postgres::Connection>> BacklogReader::open_session(
    const postgres::Connection::Options& database, Deadline deadline, std::stop_token stop) {
  auto session = postgres::Connection::open(database, stop);
  if (!session) return session;
  auto alone = (*session)->script("set max_parallel_workers_per_gather to 0", deadline, stop);
  if (!alone) return fail(alone.error());
  return session;
}

Result<void> BacklogReader::fetch_entries(Deadline deadline, std::stop_token stop) {
  const auto rows = connection_.query(
      "select n, xid, events from pgstream.backlog "
      "where stream_id = $1::bigint and n >= $2::bigint order by n limit $3",
      {std::to_string(stream_), std::to_string(cursor_.whole() ? cursor_.n + 1 : cursor_.n),
       std::to_string(kMostEntries)},
      deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  entries_.clear();
  for (int row = 0; row < rows->size(); ++row) {
    entries_.push_back(
        {rows->integer(row, 0), *parse_xid(rows->text(row, 1)), {}, rows->integer(row, 2), {}});
  }
  return {};
}

/// Sends a statement for the next transactions, or for a part of a large one.
Result<void> BacklogReader::start() {
  const Transaction& first = entries_.front();
  const bool within = cursor_.n == first.n && !cursor_.whole();
  Statement statement{first.n, kMostEvents};
  std::vector<postgres::Param> params = {std::to_string(stream_), std::to_string(first.n)};
  std::string sql;
  if (within || first.events > kMostEvents) {
    params.emplace_back(std::to_string(first.xid));
    params.emplace_back(std::to_string(within ? cursor_.seq : 0));
    sql = fmt::format("{} union all {} order by seq limit {}", of_one("events"),
                      of_one("events_overflow"), kMostEvents);
  } else {
    std::int64_t events = 0;
    for (const Transaction& entry : entries_) {
      events += entry.events;
      if (events > kMostEvents) break;
      statement.through = entry.n;
    }
    params.emplace_back(std::to_string(statement.through));
    sql = of_many();
  }
  auto sent = connection_.start(sql, params, postgres::Connection::Format::binary);
  if (!sent) return fail(sent.error());
  statement_ = statement;
  return {};
}

Result<void> BacklogReader::take(const PGresult* result, RecordBatch& batch) {
  const auto row = event_of(result, 1);
  if (!row) return fail(row.error());
  const std::string_view number(PQgetvalue(result, 0, 0),
                                static_cast<std::size_t>(PQgetlength(result, 0, 0)));
  const auto n = static_cast<std::int64_t>(postgres::ByteReader(number).int64());
  const auto first = entries_.empty() ? Transaction() : entries_.front();
  if (n != first.n) return fail(missing(first));
  const std::int64_t read = cursor_.n == n ? cursor_.ordinal + 1 : 1;
  cursor_ = {n, read == first.events ? 0 : read, row->seq};
  append(batch, *row, cursor_);
  ++statement_->rows;
  if (cursor_.whole()) entries_.pop_front();
  return {};
}

void BacklogReader::begin_at(const Cursor& cursor, Deadline deadline) {
  if (statement_) connection_.abandon(deadline);
  statement_.reset();
  entries_.clear();
  cursor_ = cursor;
}

Result<BacklogReader::Page> BacklogReader::read(const Cursor& cursor, const ReadLimits& limits,
                                                RecordBatch& batch, Deadline deadline,
                                                std::stop_token stop) {
  if (cursor != cursor_) begin_at(cursor, deadline);
  Page page{cursor_};
  auto done = read_on(limits, batch, page, deadline, std::move(stop));
  if (!done) {
    begin_at(cursor, deadline);
    return fail(done.error());
  }
  page.last = cursor_;
  return page;
}

Result<void> BacklogReader::read_on(const ReadLimits& limits, RecordBatch& batch, Page& page,
                                    Deadline deadline, std::stop_token stop) {
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    if (!statement_) {
      if (entries_.empty()) {
        if (auto fetched = fetch_entries(deadline, stop); !fetched) return fetched;
      }
      page.at_end = entries_.empty();
      // What was read is handed out first: the next statement may take a while.
      if (page.at_end || page.events > 0) return {};
      if (auto started = start(); !started) return started;
    }
    const auto row = connection_.next_row(kRowTimeout, stop);
    if (!row) return fail(row.error());
    if (*row) {
      if (auto taken = take(row->get(), batch); !taken) return taken;
      ++page.events;
      continue;
    }
    const Statement ended = *std::exchange(statement_, std::nullopt);
    const bool complete = entries_.empty() || entries_.front().n > ended.through;
    if (!complete && ended.rows < ended.most) return fail(missing(entries_.front()));
  }
  return {};
}

}  // namespace relay::stream
