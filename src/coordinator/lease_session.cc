#include "coordinator/lease_session.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/host_name.h"
#include "postgres/array.h"

namespace relay::coordinator {

using postgres::Param;
using postgres::Rows;

namespace {

constexpr std::chrono::milliseconds kHeartbeatEvery{1000};

std::string_view to_string(LeaseKind kind) {
  switch (kind) {
    case LeaseKind::pipeline:
      return "pipeline";
    case LeaseKind::leader:
      return "leader";
    case LeaseKind::housekeeping:
      return "housekeeping";
  }
  return "";
}

Param name_array(std::span<const std::string> names) {
  const std::vector<Param> params(names.begin(), names.end());
  return postgres::text_array(params);
}

}  // namespace

LeaseSession::LeaseSession(std::unique_ptr<postgres::Connection> connection, std::string group,
                           std::string worker_id)
    : connection_(std::move(connection)),
      group_(std::move(group)),
      worker_id_(std::move(worker_id)) {}

Result<Rows> LeaseSession::query(std::string_view sql, std::initializer_list<Param> params,
                                 std::stop_token stop) {
  return connection_->query(sql, params, Deadline::after(kTimeout), stop);
}

Result<void> LeaseSession::open(std::chrono::milliseconds lease_timeout, std::stop_token stop) {
  const auto opened =
      query("select pgtrickle.relay_open_leases($1, $2, make_interval(secs => $3::float8 / 1000))",
            {group_, worker_id_, std::to_string(lease_timeout.count())}, stop);
  if (!opened) return fail(opened.error());
  token_ = opened->text(0, 0);
  // What it writes lasts no longer than the session, or is for looking at: a standby that does not
  // answer must not cost the leases.
  return connection_->script("set synchronous_commit to off; listen pgtrickle_relay_config",
                             Deadline::after(kTimeout), stop);
}

Result<std::vector<std::string>> LeaseSession::wait(Deadline deadline, std::stop_token stop) {
  auto heard = connection_->notifications(deadline, stop);
  if (!heard) return fail(heard.error());
  std::vector<std::string> payloads;
  for (auto& notification : *heard) payloads.push_back(std::move(notification.payload));
  return payloads;
}

Result<void> LeaseSession::heartbeat(std::stop_token stop) {
  const auto now = SteadyClock::now();
  if (now < next_heartbeat_) return {};
  next_heartbeat_ = now + kHeartbeatEvery;
  const auto beat = query(
      "insert into pgtrickle.relay_instances as i (relay_group_id, worker_id, hostname, pid, "
      "version, started_at, heartbeat_at) values ($1, $2, $3, $4::int, $5, clock_timestamp(), "
      "clock_timestamp()) "
      "on conflict (relay_group_id, worker_id) do update set heartbeat_at = clock_timestamp()",
      {group_, worker_id_, host_name(), std::to_string(::getpid()), RELAY_VERSION}, stop);
  if (!beat) return fail(beat.error());
  return {};
}

Result<Renewal> LeaseSession::renew(std::stop_token stop) {
  if (const auto beat = heartbeat(stop); !beat) return fail(beat.error());
  const auto relays =
      query("select worker_id, state, ends_in_ms from pgtrickle.relay_renew_leases($1::uuid)",
            {token_}, stop);
  if (!relays) return fail(relays.error());
  if (relays->empty()) {
    ended_ = true;
    return fail(ErrorClass::fenced, "leases_lost",
                "the leases of this instance had run out, and another one took them",
                "it takes part again at once; look for what held it up: a frozen machine, a cut "
                "network");
  }
  Renewal renewal;
  for (int row = 0; row < relays->size(); ++row) {
    std::string worker(relays->text(row, 0));
    const std::string_view state = relays->text(row, 1);
    if (state == "live") {
      ++renewal.live;
      renewal.first_end =
          std::min(renewal.first_end, std::chrono::milliseconds(relays->integer(row, 2)));
    } else {
      auto& list = state == "gone"      ? renewal.gone
                   : state == "expired" ? renewal.expired
                                        : renewal.older;
      list.push_back(std::move(worker));
    }
  }
  return renewal;
}

Result<void> LeaseSession::close(std::stop_token stop) {
  const auto closed = query(
      "with gone as (delete from pgtrickle.relay_instances where relay_group_id = $1 "
      "and worker_id = $2) select pgtrickle.relay_close_leases($3::uuid)",
      {group_, worker_id_, token_}, stop);
  if (!closed) return fail(closed.error());
  return {};
}

Result<std::vector<std::string>> LeaseSession::take(LeaseKind kind,
                                                    std::span<const std::string> names,
                                                    std::size_t limit, std::stop_token stop) {
  std::vector<std::string> taken;
  if (names.empty() || limit == 0) return taken;
  const auto rows =
      query("select pgtrickle.relay_take_leases($1::uuid, $2, $3::text[], $4::int)",
            {token_, std::string(to_string(kind)), name_array(names), std::to_string(limit)}, stop);
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) taken.emplace_back(rows->text(row, 0));
  return taken;
}

Result<void> LeaseSession::release(LeaseKind kind, std::span<const std::string> names,
                                   std::stop_token stop) {
  if (names.empty()) return {};
  const auto rows = query("select pgtrickle.relay_release_leases($1::uuid, $2, $3::text[])",
                          {token_, std::string(to_string(kind)), name_array(names)}, stop);
  if (rows) return {};
  ended_ = true;
  return fail(rows.error());
}

}  // namespace relay::coordinator
