#include "ownership/lease_session.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/host_name.h"
#include "postgres/array.h"

namespace relay::ownership {

using postgres::Param;
using postgres::Rows;

namespace {

constexpr std::chrono::milliseconds kHeartbeatEvery{1000};

Param name_array(std::span<const std::string> names) {
  const std::vector<Param> params(names.begin(), names.end());
  return postgres::text_array(params);
}

}  // namespace

LeaseSession::Statements::Statements(const LeaseNames& names)
    : open(fmt::format("select {}open_leases($1, $2, make_interval(secs => $3::float8 / 1000))",
                       names.prefix)),
      listen(fmt::format("set synchronous_commit to off; listen {}", names.channel)),
      heartbeat(fmt::format(
          "insert into {}instances as i (relay_group_id, worker_id, hostname, pid, "
          "version, started_at, heartbeat_at) values ($1, $2, $3, $4::int, $5, clock_timestamp(), "
          "clock_timestamp()) "
          "on conflict (relay_group_id, worker_id) do update set heartbeat_at = clock_timestamp()",
          names.prefix)),
      renew(fmt::format("select worker_id, state, ends_in_ms from {}renew_leases($1::uuid)",
                        names.prefix)),
      close(fmt::format("with gone as (delete from {0}instances where relay_group_id = $1 "
                        "and worker_id = $2) select {0}close_leases($3::uuid)",
                        names.prefix)),
      take(fmt::format("select {}take_leases($1::uuid, $2, $3::text[], $4::int)", names.prefix)),
      release(fmt::format("select {}release_leases($1::uuid, $2, $3::text[])", names.prefix)) {}

LeaseSession::LeaseSession(std::unique_ptr<postgres::Connection> connection,
                           const LeaseNames& names, std::string group, std::string worker_id)
    : connection_(std::move(connection)),
      sql_(names),
      group_(std::move(group)),
      worker_id_(std::move(worker_id)) {}

Result<Rows> LeaseSession::query(std::string_view sql, std::initializer_list<Param> params,
                                 std::stop_token stop) {
  return connection_->query(sql, params, Deadline::after(kTimeout), stop);
}

Result<void> LeaseSession::open(std::chrono::milliseconds lease_timeout, std::stop_token stop) {
  const auto opened =
      query(sql_.open, {group_, worker_id_, std::to_string(lease_timeout.count())}, stop);
  if (!opened) return fail(opened.error());
  token_ = opened->text(0, 0);
  // What it writes lasts no longer than the session, or is for looking at: a standby that does not
  // answer must not cost the leases.
  return connection_->script(sql_.listen, Deadline::after(kTimeout), stop);
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
  const auto beat =
      query(sql_.heartbeat,
            {group_, worker_id_, host_name(), std::to_string(::getpid()), RELAY_VERSION}, stop);
  if (!beat) return fail(beat.error());
  return {};
}

Result<Renewal> LeaseSession::renew(std::stop_token stop) {
  if (const auto beat = heartbeat(stop); !beat) return fail(beat.error());
  const auto relays = query(sql_.renew, {token_}, stop);
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
  const auto closed = query(sql_.close, {group_, worker_id_, token_}, stop);
  if (!closed) return fail(closed.error());
  return {};
}

Result<std::vector<std::string>> LeaseSession::take(std::string_view kind,
                                                    std::span<const std::string> names,
                                                    std::size_t limit, std::stop_token stop) {
  std::vector<std::string> taken;
  if (names.empty() || limit == 0) return taken;
  const auto rows =
      query(sql_.take, {token_, std::string(kind), name_array(names), std::to_string(limit)}, stop);
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) taken.emplace_back(rows->text(row, 0));
  return taken;
}

Result<bool> LeaseSession::take_single(std::string_view kind, std::stop_token stop) {
  const std::array<std::string, 1> one = {""};
  const auto taken = take(kind, one, 1, std::move(stop));
  if (!taken) return fail(taken.error());
  return !taken->empty();
}

Result<void> LeaseSession::release(std::string_view kind, std::span<const std::string> names,
                                   std::stop_token stop) {
  if (names.empty()) return {};
  const auto rows = query(sql_.release, {token_, std::string(kind), name_array(names)}, stop);
  if (rows) return {};
  ended_ = true;
  return fail(rows.error());
}

}  // namespace relay::ownership
