#include "stream/slot_keeper.h"

#include <fmt/core.h>

#include <future>
#include <thread>
#include <utility>

#include "core/log.h"
#include "stream/slot_verdict.h"

namespace relay::stream {

namespace {

constexpr std::chrono::seconds kTimeout{30};
/// A slot waits for each transaction that has an xid, in any database.
constexpr std::chrono::hours kWaitForSlot{24};
/// What was missed may be a hundred million events.
constexpr std::chrono::hours kContinue{2};
constexpr std::chrono::seconds kRoundEvery{1};
constexpr std::string_view kInUse = "55006";

}  // namespace

/// The stream's row, and what there is.
struct SlotKeeper::Found {
  std::string slot;
  std::string publication;
  bool known_system = false;
  std::string system;
  std::int64_t timeline = 0;
  std::string server_started;
  bool can_failover = false;  ///< the server knows slots that standbys synchronise
  bool failover = false;      ///< the slot is one
  SlotFacts facts;
};

Result<SlotKeeper::Found> SlotKeeper::look(Deadline deadline, std::stop_token stop) {
  // As jsonb, a slot has no field where an older server has no such column.
  const auto rows = session_.query(
      "select coalesce(s.slot_name, 'pgstream_' || s.id), 'pgstream_' || s.id, "
      "s.system_identifier, "
      "coalesce(s.timeline, 0), extract(epoch from pg_postmaster_start_time()), "
      "current_setting('server_version_num')::int >= 170000 and not pg_is_in_recovery(), "
      "(to_jsonb(r) ->> 'failover')::boolean, r.slot_name is not null, "
      "r.wal_status = 'lost' or r.restart_lsn is null or r.database <> current_database(), "
      "r.temporary, (to_jsonb(r) ->> 'synced')::boolean, p.oid = s.publication_oid, "
      "coalesce(r.confirmed_flush_lsn, '0/0'), coalesce(s.recorded_lsn, '0/0') "
      "from pgstream.streams s left join pg_publication p on p.pubname = 'pgstream_' || s.id "
      "left join pg_replication_slots r "
      "on r.slot_name = coalesce(s.slot_name, 'pgstream_' || s.id) "
      "where s.id = $1::bigint",
      {std::to_string(stream_)}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->size() == 0) return fail(no_stream(stream_));
  Found found;
  found.slot = rows->text(0, 0);
  found.publication = rows->text(0, 1);
  found.known_system = !rows->is_null(0, 2);
  if (found.known_system) found.system = rows->text(0, 2);
  found.timeline = rows->integer(0, 3);
  found.server_started = rows->text(0, 4);
  found.can_failover = rows->boolean(0, 5);
  found.failover = rows->boolean(0, 6);
  found.facts.exists = rows->boolean(0, 7);
  found.facts.invalidated = rows->boolean(0, 8);
  found.facts.temporary = rows->boolean(0, 9);
  found.facts.synchronised = rows->boolean(0, 10);
  found.facts.same_publication = rows->boolean(0, 11);
  found.facts.confirmed = *postgres::parse_lsn(rows->text(0, 12));
  found.facts.recorded = *postgres::parse_lsn(rows->text(0, 13));
  return found;
}

Result<SlotKeeper::Slot> SlotKeeper::ready(std::int64_t last_n, bool undecodable,
                                           std::stop_token stop) {
  const auto system = log_.identify(Deadline::after(kTimeout), stop);
  if (!system) return fail(system.error());
  auto found = look(Deadline::after(kTimeout), stop);
  if (!found) return fail(found.error());
  if (found->server_started != system->started) {
    return fail(ErrorClass::transient, "two_servers",
                "two sessions of one URL are on different servers, or on one that was started "
                "again in between",
                "none is needed, unless it lasts: the URL must lead to the primary only, as with "
                "target_session_attrs=read-write");
  }
  if (found->known_system && found->system != system->identifier) {
    return fail(misconfigured(
        "another_system",
        fmt::format(
            "stream {} was read from the server with the system identifier {}, and this one "
            "has {}: it is a copy, or was upgraded",
            stream_, found->system, system->identifier),
        "start the daemon once with --resend, which delivers what is not known to be settled, or "
        "with --skip, which begins with what comes from now on"));
  }
  found->facts.same_timeline = found->timeline == system->timeline;
  found->facts.undecodable = undecodable;
  found->system = system->identifier;
  found->timeline = system->timeline;
  Slot slot{found->slot, found->publication};
  slot.timeline = found->timeline;
  slot.failover = found->can_failover;
  const SlotVerdict verdict = judge(found->facts);
  if (continues(verdict)) {
    if (found->can_failover && !found->failover) {
      if (auto done = let_synchronise(found->slot, stop); !done) return fail(done.error());
    }
    return verdict == SlotVerdict::continues ? slot : continue_promoted(*found, slot, stop);
  }
  if (found->known_system) {
    slot.note = fmt::format(
        "the replication slot {} does not continue the stream: {}; what was missed is read from "
        "pgstream.events",
        found->slot, reason_of(verdict));
    log::warn("slot_lost", std::to_string(stream_), "{}", slot.note);
  }
  if (auto made = make(*found, last_n, stop); !made) return fail(made.error());
  slot.made = true;
  slot.lost = found->known_system;
  return slot;
}

Result<SlotKeeper::Slot> SlotKeeper::continue_promoted(const Found& found, Slot slot,
                                                       std::stop_token stop) {
  auto known = store_.write(
      "update pgstream.streams s set timeline = $3::int "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {std::to_string(found.timeline)}, Deadline::after(kTimeout), std::move(stop));
  if (!known) return fail(known.error());
  slot.note = fmt::format(
      "the server was promoted: the stream goes on with the synchronised replication slot {} from "
      "{}",
      found.slot, to_string(found.facts.confirmed));
  log::info("promoted", std::to_string(stream_), "{}", slot.note);
  return slot;
}

/// A slot that an earlier version has made, or that was made on an older server. Without, the
/// stream works as well.
Result<void> SlotKeeper::let_synchronise(const std::string& slot, std::stop_token stop) {
  auto altered = log_.let_failover(slot, Deadline::after(kTimeout), std::move(stop));
  if (altered || !log_.ok() || altered.error().code == kInUse) return altered;
  log::warn("slot_not_altered", std::to_string(stream_),
            "standbys cannot synchronise the replication slot {}: {}", slot,
            altered.error().message);
  return {};
}

Result<postgres::ReplicationConnection::NewSlot> SlotKeeper::create(const Found& found,
                                                                    std::int64_t last_n,
                                                                    std::stop_token stop) {
  std::promise<Result<postgres::ReplicationConnection::NewSlot>> promise;
  auto made = promise.get_future();
  std::stop_source ended;
  const std::stop_callback stopped(stop, [&] { ended.request_stop(); });
  const std::jthread waiting([&] {
    promise.set_value(log_.create_slot(found.slot, {.failover = found.can_failover},
                                       Deadline::after(kWaitForSlot), ended.get_token()));
  });
  while (made.wait_for(kRoundEvery) != std::future_status::ready) {
    if (auto round = wait_for_writers(last_n, stop); !round) {
      ended.request_stop();
      return fail(round.error());
    }
  }
  return made.get();
}

/// Adds to the backlog what was committed meanwhile, and tells which transaction is waited for.
Result<void> SlotKeeper::wait_for_writers(std::int64_t last_n, std::stop_token stop) {
  const auto moment = store_.look(Deadline::after(kTimeout), stop);
  if (!moment) return fail(moment.error());
  auto continued = store_.continue_from(moment->snapshot, last_n, Deadline::after(kContinue), stop);
  if (!continued) return continued;
  // Locks, because the xid of another role's session is not shown.
  const auto rows = session_.query(
      "select coalesce(l.pid, 0), coalesce(p.gid, ''), coalesce(d.datname, p.database, '') "
      "from pg_locks l left join pg_stat_activity a on a.pid = l.pid "
      "left join pg_database d on d.oid = a.datid "
      "left join pg_prepared_xacts p on p.transaction = l.transactionid "
      "where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted "
      "and l.pid is distinct from pg_backend_pid() order by age(l.transactionid) desc limit 1",
      {}, Deadline::after(kTimeout), std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->size() == 0) return {};
  const bool prepared = rows->integer(0, 0) == 0;
  return waits_(Error{
      ErrorClass::transient,
      "slot_waits",
      prepared ? fmt::format("a new replication slot waits for the prepared transaction {} in "
                             "database {}; events come meanwhile, once a second",
                             rows->text(0, 1), rows->text(0, 2))
               : fmt::format("a new replication slot waits for the transaction of session {} in "
                             "database {}; events come meanwhile, once a second",
                             rows->integer(0, 0), rows->text(0, 2)),
      prepared ? "COMMIT PREPARED or ROLLBACK PREPARED it"
               : fmt::format("end it, or SELECT pg_terminate_backend({})", rows->integer(0, 0)),
      {}});
}

/// What the snapshot of a new slot sees, as pg_snapshot is written.
Result<std::string> SlotKeeper::read_snapshot(const std::string& exported, Deadline deadline,
                                              std::stop_token stop) {
  auto begun = session_.script(
      fmt::format("begin isolation level repeatable read read only; set transaction snapshot {}",
                  session_.quote_literal(exported)),
      deadline, stop);
  if (!begun) return fail(begun.error());
  const auto rows = session_.query("select pg_current_snapshot()", {}, deadline, stop);
  auto ended = session_.script("rollback", deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (!ended) return fail(ended.error());
  return std::string(rows->text(0, 0));
}

/// Publication first, slot second: a slot that meets a change from before its publication existed
/// cannot go on (15), or skips it (18).
Result<void> SlotKeeper::make(const Found& found, std::int64_t last_n, std::stop_token stop) {
  // Until all is done the slot does not continue the stream, though it may exist by then.
  auto unknown = store_.write(
      "update pgstream.streams s set publication_oid = null "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {}, Deadline::after(kTimeout), stop);
  if (!unknown) return unknown;
  const auto published = session_.query("select pgstream.add_stream($1::bigint)",
                                        {std::to_string(stream_)}, Deadline::after(kTimeout), stop);
  if (!published) return fail(published.error());
  if (found.facts.exists) {
    auto dropped = log_.drop_slot(found.slot, Deadline::after(kTimeout), stop);
    if (!dropped) return dropped;
  }
  const auto made = create(found, last_n, stop);
  if (!made) return fail(made.error());
  const auto snapshot = read_snapshot(made->snapshot, Deadline::after(kTimeout), stop);
  if (!snapshot) return fail(snapshot.error());
  auto continued = store_.continue_from(*snapshot, last_n, Deadline::after(kContinue), stop);
  if (!continued) return continued;
  return store_.write(
      "update pgstream.streams s set slot_name = $3, publication_oid = (select p.oid from "
      "pg_publication p where p.pubname = $4), system_identifier = $5::bigint, timeline = $6::int, "
      "recorded_lsn = $7::pg_lsn "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {found.slot, found.publication, found.system, std::to_string(found.timeline),
       to_string(made->consistent_point)},
      Deadline::after(kTimeout), std::move(stop));
}

}  // namespace relay::stream
