#include "coordinator/reconciler.h"

#include <algorithm>

#include "coordinator/share.h"

namespace relay::coordinator {

namespace {

/// True: it runs, and is to be told to stop.
bool begin_stop(Reconciler::Placement& placement) {
  if (placement.run != Reconciler::Run::running) return false;
  placement.run = Reconciler::Run::stopping;
  return true;
}

}  // namespace

Reconciler::Changes Reconciler::follow(std::span<const Wanted> wanted) {
  Changes changes;
  for (auto& [name, placement] : placements_) placement.wanted = false;
  for (const Wanted& pipeline : wanted) {
    const auto [found, is_new] = placements_.try_emplace(pipeline.name);
    Placement& placement = found->second;
    placement.wanted = true;
    if (is_new) {
      changes.added.push_back(pipeline.name);
    } else if (placement.fingerprint != pipeline.fingerprint) {
      changes.changed.push_back(pipeline.name);
      placement.not_before = {};
      if (begin_stop(placement)) changes.stop.push_back(pipeline.name);
    }
    placement.fingerprint = pipeline.fingerprint;
  }
  for (auto& [name, placement] : placements_) {
    if (!placement.wanted && begin_stop(placement)) changes.stop.push_back(name);
  }
  return changes;
}

Reconciler::Exchange Reconciler::balance(const Group& group) {
  Exchange exchange;
  Names held;
  for (const auto& [name, placement] : placements_) {
    if (!placement.wanted) continue;
    ++exchange.total;
    if (!placement.owned) {
      exchange.free_to_take.push_back(name);
    } else if (!placement.handing_over) {
      held.push_back(name);
    }
  }
  const Share share = group.leads ? leader_share(exchange.total, *group.leads, held.size())
                                  : share_of(exchange.total, group.live, held.size());
  for (std::size_t i = 0; i < share.release && i < held.size(); ++i) {
    const std::string& name = held[held.size() - 1 - i];
    Placement& placement = placements_.at(name);
    placement.handing_over = true;
    exchange.hand_over.push_back(name);
    if (begin_stop(placement)) exchange.stop.push_back(name);
  }
  exchange.limit = share.take;
  return exchange;
}

void Reconciler::took(std::span<const std::string> names) {
  for (const std::string& name : names) {
    Placement& placement = placements_.at(name);
    placement.owned = true;
    placement.not_before = {};
  }
}

Reconciler::Names Reconciler::start(Time now, std::size_t coming_up) {
  Names names;
  if (coming_up >= kStartingAtOnce) return names;
  for (auto& [name, placement] : placements_) {
    if (names.size() >= kStartingAtOnce) break;
    if (!placement.owned || !placement.wanted || placement.handing_over) continue;
    if (placement.run != Run::none || now < placement.not_before) continue;
    placement.run = Run::running;
    names.push_back(name);
  }
  return names;
}

void Reconciler::not_made(const std::string& name, Time again) {
  Placement& placement = placements_.at(name);
  placement.run = Run::none;
  placement.not_before = again;
}

void Reconciler::broke_off(const std::string& name, bool hand_over, std::optional<Time> again) {
  Placement& placement = placements_.at(name);
  if (hand_over) placement.handing_over = true;
  if (again) placement.not_before = *again;
  begin_stop(placement);
}

void Reconciler::ended(const std::string& name) {
  placements_.at(name).run = Run::none;
}

Reconciler::Leaving Reconciler::leave() {
  Leaving leaving;
  for (const auto& [name, placement] : placements_) {
    if (placement.run != Run::none) continue;
    if (placement.owned && (!placement.wanted || placement.handing_over)) {
      if (!placement.wanted) leaving.removed.push_back(name);
      leaving.release.push_back(name);
    }
    if (!placement.wanted) leaving.forget.push_back(name);
  }
  // Nothing is changed before all of it is listed: memory may run out on the way.
  for (const std::string& name : leaving.release) {
    Placement& placement = placements_.at(name);
    placement.owned = placement.handing_over = false;
  }
  for (const std::string& name : leaving.forget) placements_.erase(name);
  return leaving;
}

void Reconciler::lost() {
  for (auto& [name, placement] : placements_) {
    placement.owned = placement.handing_over = false;
    placement.run = Run::none;
  }
}

}  // namespace relay::coordinator
