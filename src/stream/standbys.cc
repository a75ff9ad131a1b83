#include "stream/standbys.h"

#include <fmt/core.h>

#include <utility>

namespace relay::stream {

Result<Standbys> look_at_standbys(postgres::Connection& session, const std::string& slot,
                                  Deadline deadline, std::stop_token stop) {
  // Other roles' sessions show little more than their name, which the synchronisation's ends with.
  const auto rows = session.query(
      "with named as (select name from regexp_split_to_table("
      "current_setting('synchronized_standby_slots'), '[[:space:],\"]+') name where name <> '') "
      "select (select count(*) from pg_stat_activity a "
      "where a.application_name like '%slotsync worker'), "
      "(select string_agg(n.name, ', ') from named n), "
      "(select string_agg(n.name, ', ') from named n where not exists "
      "(select from pg_replication_slots r where r.slot_name = n.name "
      "and r.slot_type = 'physical' and r.active)), "
      "(select string_agg(r.slot_name, ', ') from pg_replication_slots r "
      "where r.slot_type = 'physical' and r.active and not r.temporary), "
      "exists (select from pg_replication_slots r join pg_stat_activity a on a.pid = r.active_pid "
      "where r.slot_name = $1 and a.wait_event = 'WaitForStandbyConfirmation')",
      {slot}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  return Standbys{slot,
                  rows->integer(0, 0),
                  std::string(rows->text(0, 1)),
                  std::string(rows->text(0, 2)),
                  std::string(rows->text(0, 3)),
                  rows->boolean(0, 4)};
}

std::optional<Error> problem_of(const Standbys& standbys) {
  if (standbys.waits && !standbys.absent.empty()) {
    return Error{ErrorClass::transient,
                 "standby_gone",
                 fmt::format("the stream waits for standbys that synchronized_standby_slots names "
                             "and that are not connected: {}",
                             standbys.absent),
                 "start them, or take their slots out of synchronized_standby_slots and SELECT "
                 "pg_reload_conf()",
                 {}};
  }
  if (standbys.synchronising > 0 && standbys.named.empty()) {
    return misconfigured(
        "standby_not_waited_for",
        "a standby synchronises the replication slots, and the stream does not wait for it: after "
        "a failover consumers may have events that the database has lost",
        fmt::format(
            "ALTER SYSTEM SET synchronized_standby_slots = '{}'; and SELECT "
            "pg_reload_conf()",
            standbys.physical.empty() ? "<the standby's primary_slot_name>" : standbys.physical));
  }
  if (standbys.synchronising == 0 && !standbys.named.empty()) {
    return misconfigured(
        "slot_not_synchronised",
        fmt::format("the stream waits for the standbys of synchronized_standby_slots ({}), and "
                    "none of them synchronises the replication slot {}: it would be made anew "
                    "after a failover",
                    standbys.named, standbys.slot),
        "set sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name, and a "
        "dbname in primary_conninfo at the standby");
  }
  return std::nullopt;
}

}  // namespace relay::stream
