#include "stream/store.h"

#include <fmt/core.h>

#include <functional>
#include <utility>

namespace relay::stream {

using postgres::Lsn;

Error no_stream(std::int64_t stream) {
  return misconfigured("no_stream", fmt::format("there is no stream {}", stream),
                       fmt::format("SELECT pgstream.add_stream({})", stream));
}

namespace {

template <class Items, class Member>
std::string array_of(const Items& items, Member member) {
  std::string out = "{";
  for (const auto& item : items) {
    if (out.size() > 1) out += ',';
    out += std::to_string(std::invoke(member, item));
  }
  return out + '}';
}

std::optional<std::vector<Xid>> parse_xids(std::string_view array) {
  std::vector<Xid> xids;
  for (std::size_t i = 1; i + 1 < array.size();) {
    const std::size_t end = array.find_first_of(",}", i);
    if (end == std::string_view::npos) return std::nullopt;
    const auto xid = parse_xid(array.substr(i, end - i));
    if (!xid) return std::nullopt;
    xids.push_back(*xid);
    i = end + 1;
  }
  return xids;
}

}  // namespace

Result<std::unique_ptr<postgres::Connection>> Store::open_session(
    const postgres::Connection::Options& database, Deadline deadline, std::stop_token stop) {
  auto session = postgres::Connection::open(database, stop);
  if (!session) return session;
  auto durable = (*session)->script("set synchronous_commit to on", deadline, std::move(stop));
  if (!durable) return fail(durable.error());
  return session;
}

Result<void> Store::claim(Deadline deadline, std::stop_token stop) {
  const auto rows =
      connection_.query("update pgstream.streams set owner = $2::uuid where id = $1::bigint",
                        {std::to_string(key_.stream), key_.token}, deadline, std::move(stop));
  return rows ? Result<void>() : fail(rows.error());
}

Result<Store::Stored> Store::load(std::int64_t behind_n, Deadline deadline, std::stop_token stop) {
  const auto rows = connection_.query(
      "select coalesce(s.recorded_lsn, '0/0'), coalesce(s.settled_snapshot, '1:1:'), "
      "s.settled_also, "
      "greatest(max(b.n), s.last_n), coalesce(sum(b.events) filter (where b.n > $2::bigint), 0) "
      "from pgstream.streams s left join pgstream.backlog b on b.stream_id = s.id "
      "where s.id = $1::bigint group by s.id",
      {std::to_string(key_.stream), std::to_string(behind_n)}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->size() == 0) return fail(no_stream(key_.stream));
  const auto recorded = postgres::parse_lsn(rows->text(0, 0));
  auto snapshot = Snapshot::parse(rows->text(0, 1));
  const auto also = parse_xids(rows->text(0, 2));
  if (!recorded || !snapshot || !also) {
    return fail(misconfigured("stream_state", "pgstream.streams holds values of another form",
                              "see which program wrote them"));
  }
  return Stored{AccountedBefore(*recorded, std::move(*snapshot), *also), rows->integer(0, 3),
                rows->integer(0, 4)};
}

Result<void> Store::write(std::string_view sql, std::initializer_list<postgres::Param> params,
                          Deadline deadline, std::stop_token stop) {
  std::vector<postgres::Param> all{std::to_string(key_.stream), key_.token};
  all.insert(all.end(), params.begin(), params.end());
  const auto rows = connection_.query(sql, all, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->size() == 0) {
    return fail(ErrorClass::fenced, "fenced",
                fmt::format("another daemon owns stream {} now", key_.stream));
  }
  return {};
}

Result<void> Store::record(std::span<const Transaction> transactions, Deadline deadline,
                           std::stop_token stop) {
  return write(
      "with owned as (update pgstream.streams s set recorded_lsn = $3::pg_lsn, last_n = $4::bigint "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id), "
      "added as (insert into pgstream.backlog (stream_id, n, xid, events) "
      "select o.id, t.n, t.xid, t.events from owned o cross join "
      "unnest($5::bigint[], $6::xid8[], $7::bigint[]) t (n, xid, events)) "
      "select from owned",
      {to_string(transactions.back().end), std::to_string(transactions.back().n),
       array_of(transactions, &Transaction::n), array_of(transactions, &Transaction::xid),
       array_of(transactions, &Transaction::events)},
      deadline, std::move(stop));
}

Result<void> Store::account(Lsn place, Deadline deadline, std::stop_token stop) {
  return write(
      "update pgstream.streams s set recorded_lsn = greatest(s.recorded_lsn, $3::pg_lsn) "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {to_string(place)}, deadline, std::move(stop));
}

Result<void> Store::remove(std::int64_t n, Deadline deadline, std::stop_token stop) {
  return write(
      "with owned as (select s.id from pgstream.streams s "
      "where s.id = $1::bigint and s.owner = $2::uuid for share), "
      "gone as (delete from pgstream.backlog b using owned o "
      "where b.stream_id = o.id and b.n <= $3::bigint) select from owned",
      {std::to_string(n)}, deadline, std::move(stop));
}

Result<Store::Moment> Store::look(Deadline deadline, std::stop_token stop) {
  // The snapshot is older than what the function gives: a transaction that it sees has written its
  // commit record before.
  const auto rows = connection_.query(
      "select pg_current_snapshot(), pg_current_wal_insert_lsn(), exists (select "
      "from pgstream.streams s join pg_publication p on p.oid = s.publication_oid "
      "where s.id = $1::bigint)",
      {std::to_string(key_.stream)}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  return Moment{std::string(rows->text(0, 0)), *postgres::parse_lsn(rows->text(0, 1)),
                rows->boolean(0, 2)};
}

Result<void> Store::keep(const std::string& snapshot, std::span<const Xid> also, Deadline deadline,
                         std::stop_token stop) {
  return write(
      "update pgstream.streams s set settled_snapshot = $3::pg_snapshot, settled_also = "
      "$4::xid8[], "
      "round_snapshot = null, round_seq = -1 "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {snapshot, array_of(also, [](Xid xid) { return xid; })}, deadline, std::move(stop));
}

Result<Rounds::Place> Store::load_rounds(Deadline deadline, std::stop_token stop) {
  const auto rows = connection_.query(
      "select coalesce(s.settled_snapshot, '1:1:'), coalesce(s.round_snapshot::text, ''), "
      "s.round_seq from pgstream.streams s where s.id = $1::bigint",
      {std::to_string(key_.stream)}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->size() == 0) return fail(no_stream(key_.stream));
  return Rounds::Place{std::string(rows->text(0, 0)), std::string(rows->text(0, 1)),
                       rows->integer(0, 2)};
}

Result<void> Store::keep(const Rounds::Place& settled, Deadline deadline, std::stop_token stop) {
  return write(
      "with gone as (delete from pgstream.backlog b using pgstream.streams s "
      "where s.id = $1::bigint and s.owner = $2::uuid and b.stream_id = s.id "
      "and s.settled_snapshot::text <> $3) "
      "update pgstream.streams s set settled_snapshot = $3::pg_snapshot, "
      "settled_also = case when s.settled_snapshot::text = $3 then s.settled_also else '{}' end, "
      "round_snapshot = nullif($4, '')::pg_snapshot, round_seq = $5::bigint "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {settled.seen, settled.next, std::to_string(settled.seq)}, deadline, std::move(stop));
}

/// The order of the last events is right for each row: a transaction changes a row only when the
/// one that changed it before has ended, and so has written its events.
Result<void> Store::continue_from(const std::string& snapshot, std::int64_t last_n,
                                  Deadline deadline, std::stop_token stop) {
  return write(
      "with before as (select coalesce(s.settled_snapshot, '1:1:') as seen, s.settled_also as also "
      "from pgstream.streams s where s.id = $1::bigint), "
      "behind as (select e.xid, count(*) as events, row_number() over (order by max(e.seq)) as n "
      "from (select e.xid, e.seq, e.stream_id from pgstream.events e "
      "union all select e.xid, e.seq, e.stream_id from pgstream.events_overflow e) e, before b "
      "where e.stream_id = $1::bigint and (e.xid >= pg_snapshot_xmax(b.seen) "
      "or e.xid in (select pg_snapshot_xip(b.seen))) and e.xid <> all (b.also) "
      "and pg_visible_in_snapshot(e.xid, $3::pg_snapshot) "
      "and not exists (select from pgstream.backlog l "
      "where l.stream_id = $1::bigint and l.xid = e.xid) group by e.xid), "
      "owned as (update pgstream.streams s set settled_snapshot = $3::pg_snapshot, "
      "settled_also = '{}', recorded_lsn = null, round_snapshot = null, round_seq = -1, "
      "last_n = greatest(s.last_n, $4::bigint) + (select count(*) from behind) "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id, s.last_n), "
      "added as (insert into pgstream.backlog (stream_id, n, xid, events) "
      "select o.id, o.last_n - (select count(*) from behind) + h.n, h.xid, h.events "
      "from owned o cross join behind h) "
      "select from owned",
      {snapshot, std::to_string(last_n)}, deadline, std::move(stop));
}

}  // namespace relay::stream
