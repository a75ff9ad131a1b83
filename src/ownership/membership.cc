#include "ownership/membership.h"

#include <algorithm>
#include <utility>

#include "core/log.h"

namespace relay::ownership {

using std::chrono::milliseconds;

namespace {

/// Between two looks at a lease that is about to end.
constexpr milliseconds kShortestBeat{20};

}  // namespace

Membership::Membership(Options options)
    : options_(std::move(options)), clock_(options_.lease_timeout) {}

Result<void> Membership::connect(std::stop_token stop) {
  auto opened = postgres::Connection::open(options_.connection, std::move(stop));
  if (!opened) return fail(opened.error());
  session_ = std::make_unique<LeaseSession>(std::move(*opened), options_.names, options_.group,
                                            options_.worker_id);
  return {};
}

Result<void> Membership::join(std::stop_token stop) {
  const auto open = session_->open(options_.lease_timeout, std::move(stop));
  kept_out_ = !open;
  if (!open) return open;
  next_beat_ = {};
  return {};
}

void Membership::lost() {
  clock_.lost();
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

Result<Renewal> Membership::beat(std::stop_token stop) {
  auto renewal = renew(std::move(stop));
  if (!renewal) return renewal;
  for (const std::string& worker : renewal->gone) {
    log::warn("takeover", "", "instance {} is gone: its session ended", worker);
  }
  for (const std::string& worker : renewal->expired) {
    log::warn("takeover", "", "instance {} has not renewed its leases in time", worker);
  }
  return renewal;
}

bool Membership::keep() {
  if (!session_ || !session_->ok() || SteadyClock::now() < next_beat_) return true;
  return renew({}) || session_->ok();
}

}  // namespace relay::ownership
