#include "coordinator/group_role.h"

#include <fmt/core.h>

#include <optional>
#include <string>
#include <utility>

#include "core/log.h"

namespace relay::coordinator {

namespace {

constexpr std::string_view kLeaderLease = "leader";
constexpr std::string_view kHousekeepingLease = "housekeeping";

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

bool GroupRole::regroup(const ownership::Renewal& renewal) {
  if (renewal.older.empty()) {
    log::recovered("older_relay", "");
  } else {
    log::failure("older_relay", "", beside_older(renewal.older.front()));
  }
  return std::exchange(live_, renewal.live) != renewal.live;
}

Result<bool> GroupRole::take_duty(std::stop_token stop) {
  const auto taken = membership_.session().take_single(kHousekeepingLease, std::move(stop));
  on_duty_ = taken.value_or(false);
  return taken;
}

Result<Reconciler::Group> GroupRole::group(std::stop_token stop) {
  if (!leader_mode_) return Reconciler::Group{live_, std::nullopt};
  if (!leads_) {
    const auto taken = membership_.session().take_single(kLeaderLease, std::move(stop));
    if (!taken) return fail(taken.error());
    leads_ = *taken;
  }
  return Reconciler::Group{live_, leads_};
}

}  // namespace relay::coordinator
