#include "stream/slot_keeper.h"

#include <fmt/core.h>

#include <future>
#include <thread>
#include <utility>

#include "core/log.h"

namespace relay::stream {

namespace {

constexpr std::chrono::seconds kTimeout{30};
/// A slot waits for each transaction that has an xid, in any database.
constexpr std::chrono::hours kWaitForSlot{24};
constexpr std::chrono::seconds kRoundEvery{1};

}  // namespace

/// The stream's row, and what there is.
struct SlotKeeper::Found {
  std::string slot;
  std::string publication;
  bool same_publication = false;
  bool known_system = false;
  std::string system;
  std::int64_t timeline = 0;
  bool has_slot = false;
  bool slot_lost = false;
};

Result<SlotKeeper::Found> SlotKeeper::look(Deadline deadline, std::stop_token stop) {
  const auto rows = session_.query(
      "select coalesce(s.slot_name, 'pgstream_' || s.id), 'pgstream_' || s.id, "
      "coalesce(p.oid = s.publication_oid, false), "
      "s.system_identifier, coalesce(s.timeline, 0), r.slot_name is not null, "
      "coalesce(r.wal_status = 'lost' or r.restart_lsn is null "
      "or r.database <> current_database(), false) "
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
  found.same_publication = rows->boolean(0, 2);
  found.known_system = !rows->is_null(0, 3);
  if (found.known_system) found.system = rows->text(0, 3);
  found.timeline = rows->integer(0, 4);
  found.has_slot = rows->boolean(0, 5);
  found.slot_lost = rows->boolean(0, 6);
  return found;
}

Result<SlotKeeper::Slot> SlotKeeper::ready(std::int64_t last_n, std::stop_token stop) {
  const auto system = log_.identify(Deadline::after(kTimeout), stop);
  if (!system) return fail(system.error());
  auto found = look(Deadline::after(kTimeout), stop);
  if (!found) return fail(found.error());
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
  Slot slot{found->slot, found->publication};
  if (found->has_slot && !found->slot_lost && found->same_publication &&
      found->timeline == system->timeline) {
    return slot;
  }
  if (found->known_system) {
    log::warn("slot_lost", std::to_string(stream_),
              "the replication slot {} does not continue the stream: {}; what was missed is read "
              "from pgstream.events",
              found->slot,
              !found->has_slot           ? "it is gone"
              : found->slot_lost         ? "it was invalidated"
              : !found->same_publication ? "the publication was made anew"
                                         : "the server was promoted");
  }
  found->system = system->identifier;
  found->timeline = system->timeline;
  if (auto made = make(*found, last_n, stop); !made) return fail(made.error());
  slot.made = true;
  slot.lost = found->known_system;
  return slot;
}

Result<postgres::ReplicationConnection::NewSlot> SlotKeeper::create(const std::string& name,
                                                                    std::int64_t last_n,
                                                                    std::stop_token stop) {
  std::promise<Result<postgres::ReplicationConnection::NewSlot>> promise;
  auto made = promise.get_future();
  std::stop_source ended;
  const std::stop_callback stopped(stop, [&] { ended.request_stop(); });
  const std::jthread waiting([&] {
    promise.set_value(log_.create_slot(name, {}, Deadline::after(kWaitForSlot), ended.get_token()));
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
  const Deadline deadline = Deadline::after(kTimeout);
  const auto moment = store_.look(deadline, stop);
  if (!moment) return fail(moment.error());
  if (auto done = store_.continue_from(moment->snapshot, last_n, deadline, stop); !done) {
    return done;
  }
  // Locks, because the xid of another role's session is not shown.
  const auto rows = session_.query(
      "select coalesce(l.pid, 0), coalesce(p.gid, ''), coalesce(d.datname, p.database, '') "
      "from pg_locks l left join pg_stat_activity a on a.pid = l.pid "
      "left join pg_database d on d.oid = a.datid "
      "left join pg_prepared_xacts p on p.transaction = l.transactionid "
      "where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted "
      "and l.pid is distinct from pg_backend_pid() order by age(l.transactionid) desc limit 1",
      {}, deadline, std::move(stop));
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
  const Deadline deadline = Deadline::after(kTimeout);
  // Until all is done the slot does not continue the stream, though it may exist by then.
  auto unknown = store_.write(
      "update pgstream.streams s set publication_oid = null "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {}, deadline, stop);
  if (!unknown) return unknown;
  const auto published = session_.query("select pgstream.add_stream($1::bigint)",
                                        {std::to_string(stream_)}, deadline, stop);
  if (!published) return fail(published.error());
  if (found.has_slot) {
    if (auto dropped = log_.drop_slot(found.slot, deadline, stop); !dropped) return dropped;
  }
  const auto made = create(found.slot, last_n, stop);
  if (!made) return fail(made.error());
  const auto snapshot = read_snapshot(made->snapshot, deadline, stop);
  if (!snapshot) return fail(snapshot.error());
  auto continued = store_.continue_from(*snapshot, last_n, deadline, stop);
  if (!continued) return continued;
  return store_.write(
      "update pgstream.streams s set slot_name = $3, publication_oid = (select p.oid from "
      "pg_publication p where p.pubname = $4), system_identifier = $5::bigint, timeline = $6::int "
      "where s.id = $1::bigint and s.owner = $2::uuid returning s.id",
      {found.slot, found.publication, found.system, std::to_string(found.timeline)}, deadline,
      std::move(stop));
}

}  // namespace relay::stream
