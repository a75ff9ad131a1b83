#include "coordinator/membership.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/log.h"

namespace relay::coordinator {

using std::chrono::milliseconds;

namespace {

/// Between two looks at a lease that is about to end.
constexpr milliseconds kShortestBeat{20};

Error beside_older(const std::string& worker) {
  return {ErrorClass::misconfigured,
          "older_relay",
          fmt::format("instance {} is of an older version, which knows no leases: this one takes "
                      "no pipeline beside it",
                      worker),
          "stop it: its pipelines are taken over at once",
          {}};
}

}  // namespace

Membership::Membership(const config::Settings& settings, postgres::Connection::Options options,
                       std::string worker_id)
    : settings_(settings),
      options_(std::move(options)),
      worker_id_(std::move(worker_id)),
      clock_(settings.lease_timeout) {}

Result<void> Membership::connect(std::stop_token stop) {
  auto opened = postgres::Connection::open(options_, std::move(stop));
  if (!opened) return fail(opened.error());
  session_ =
      std::make_unique<LeaseSession>(std::move(*opened), settings_.relay_group_id, worker_id_);
  return {};
}

Result<void> Membership::join(std::stop_token stop) {
  const auto open = session_->open(settings_.lease_timeout, std::move(stop));
  kept_out_ = !open;
  if (!open) return open;
  next_beat_ = {};
  leads_ = false;
  return {};
}

void Membership::lost() {
  clock_.lost();
  on_duty_ = false;
  session_.reset();
}

void Membership::leave() {
  if (!session_ || !session_->ok()) return;
  const auto closed = session_->close({});
  if (!closed) log::failure("database", "", closed.error());
  session_.reset();
}

/// The next time is the moment when another instance's lease ends, if that is sooner than usual:
/// what it owned is taken over at once.
Result<Renewal> Membership::renew(std::stop_token stop) {
  const auto asked = BootClock::now();
  next_beat_ = SteadyClock::now() + clock_.interval();
  auto renewal = session_->renew(std::move(stop));
  if (!renewal) return renewal;
  clock_.renewed(asked);
  const auto sooner = std::max(std::min(renewal->first_end, clock_.interval()), kShortestBeat);
  next_beat_ = std::min(next_beat_, SteadyClock::now() + sooner);
  return renewal;
}

Result<bool> Membership::beat(std::stop_token stop) {
  const auto renewal = renew(std::move(stop));
  if (!renewal) return fail(renewal.error());
  for (const std::string& worker : renewal->gone) {
    log::warn("takeover", "", "instance {} is gone: its session ended", worker);
  }
  for (const std::string& worker : renewal->expired) {
    log::warn("takeover", "", "instance {} has not renewed its leases in time", worker);
  }
  if (renewal->older.empty()) {
    log::recovered("older_relay", "");
  } else {
    log::failure("older_relay", "", beside_older(renewal->older.front()));
  }
  return std::exchange(live_, renewal->live) != renewal->live;
}

bool Membership::keep() {
  if (!session_ || !session_->ok() || SteadyClock::now() < next_beat_) return true;
  return renew({}) || session_->ok();
}

Result<bool> Membership::take_the(LeaseKind kind, std::stop_token stop) {
  const std::array<std::string, 1> one = {""};
  const auto taken = session_->take(kind, one, 1, std::move(stop));
  if (!taken) return fail(taken.error());
  return !taken->empty();
}

Result<bool> Membership::take_duty(std::stop_token stop) {
  const auto taken = take_the(LeaseKind::housekeeping, std::move(stop));
  on_duty_ = taken.value_or(false);
  return taken;
}

Result<Reconciler::Group> Membership::group(std::stop_token stop) {
  if (settings_.ha_mode != "leader") return Reconciler::Group{live_, std::nullopt};
  if (!leads_) {
    const auto taken = take_the(LeaseKind::leader, std::move(stop));
    if (!taken) return fail(taken.error());
    leads_ = *taken;
  }
  return Reconciler::Group{live_, leads_};
}

}  // namespace relay::coordinator
