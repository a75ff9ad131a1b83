#pragma once

#include <cstddef>
#include <stop_token>
#include <string_view>

#include "coordinator/reconciler.h"
#include "core/error.h"
#include "ownership/membership.h"

namespace relay::coordinator {

/// The kind of the leases of pipelines.
inline constexpr std::string_view kPipelineLease = "pipeline";

/// The duties of this instance beside its pipelines, each under a lease: leadership of the group,
/// and the housekeeping of the database. Called by the control thread.
class GroupRole {
 public:
  /// `membership` outlives this.
  GroupRole(ownership::Membership& membership, bool leader_mode)
      : membership_(membership), leader_mode_(leader_mode) {}

  /// Every lease is lost.
  void lost() { leads_ = on_duty_ = false; }
  /// Takes what a renewal returned about the group. True: the number of instances changed.
  bool regroup(const ownership::Renewal& renewal);

  /// Takes the lease of the housekeeping; false: another instance has it.
  Result<bool> take_duty(std::stop_token stop);
  bool is_on_duty() const { return on_duty_; }
  /// How the pipelines are shared now. In leader mode, takes the lead where no other instance does.
  Result<Reconciler::Group> group(std::stop_token stop);

 private:
  ownership::Membership& membership_;
  const bool leader_mode_;
  std::size_t live_ = 1;
  bool leads_ = false;
  bool on_duty_ = false;
};

}  // namespace relay::coordinator
