#include "coordinator/watch_list.h"

#include <algorithm>

namespace relay::coordinator {

void WatchList::add(const std::string& name, std::shared_ptr<Watcher> watcher) {
  Sequence& sequence = sequences_[name];
  if (sequence.value > 0) {
    watcher->moved(sequence.value);
    due_.insert(&sequence);
  }
  sequence.watches.push_back({std::move(watcher), sequence.value > 0});
}

void WatchList::remove(const Watcher& watcher) {
  std::erase_if(coming_up_, [&](const auto& one) { return one.get() == &watcher; });
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    Sequence& sequence = it->second;
    std::erase_if(sequence.watches,
                  [&](const Watch& watch) { return watch.watcher.get() == &watcher; });
    if (!sequence.watches.empty()) {
      ++it;
      continue;
    }
    due_.erase(&sequence);
    by_oid_.erase(sequence.oid);
    question_made_ = false;
    it = sequences_.erase(it);
  }
}

std::vector<std::string> WatchList::unresolved() const {
  std::vector<std::string> names;
  for (const auto& [name, sequence] : sequences_) {
    if (!sequence.asked) names.push_back(name);
  }
  return names;
}

void WatchList::resolve(const std::string& name, std::int64_t oid) {
  const auto found = sequences_.find(name);
  if (found != sequences_.end()) resolve(found->second, oid);
}

void WatchList::resolve(Sequence& sequence, std::int64_t oid) {
  if (sequence.oid != oid) {
    by_oid_.erase(sequence.oid);
    const bool had_one = sequence.oid != 0;
    sequence.oid = oid;
    sequence.value = 0;
    if (had_one) make_due(sequence);
  }
  sequence.asked = oid != 0;
  if (sequence.asked) by_oid_[oid] = &sequence;
  question_made_ = false;
}

void WatchList::unresolve_all() {
  for (auto& [name, sequence] : sequences_) sequence.asked = false;
  by_oid_.clear();
  question_made_ = false;
}

void WatchList::set_aside(std::int64_t oid) {
  const auto found = by_oid_.find(oid);
  if (found == by_oid_.end()) return;
  found->second->asked = false;
  by_oid_.erase(found);
  question_made_ = false;
}

const WatchList::Question& WatchList::question() {
  if (question_made_) return question_;
  question_.oids = question_.known = "{";
  for (const auto& [oid, sequence] : by_oid_) {
    if (question_.oids.size() > 1) {
      question_.oids += ',';
      question_.known += ',';
    }
    question_.oids += std::to_string(oid);
    question_.known += std::to_string(sequence->value);
  }
  question_.oids += '}';
  question_.known += '}';
  question_made_ = true;
  return question_;
}

bool WatchList::has_waiting() const {
  return std::ranges::any_of(sequences_, [](const auto& item) {
    return std::ranges::any_of(item.second.watches,
                               [](const Watch& watch) { return watch.watcher->waits(); });
  });
}

void WatchList::make_due(Sequence& sequence) {
  for (Watch& watch : sequence.watches) watch.due = true;
  due_.insert(&sequence);
}

void WatchList::saw(std::int64_t oid, std::int64_t value) {
  const auto found = by_oid_.find(oid);
  if (found == by_oid_.end() || found->second->value == value) return;
  Sequence& sequence = *found->second;
  sequence.value = value;
  question_made_ = false;
  for (const Watch& watch : sequence.watches) watch.watcher->moved(value);
  make_due(sequence);
}

void WatchList::gone(std::int64_t oid) {
  const auto found = by_oid_.find(oid);
  if (found != by_oid_.end()) resolve(*found->second, 0);
}

/// True: one was woken.
bool WatchList::wake_one(Sequence& sequence) {
  for (Watch& watch : sequence.watches) {
    if (!watch.due || !watch.watcher->asleep()) continue;
    watch.due = false;
    watch.watcher->wake();
    coming_up_.push_back(watch.watcher);
    return true;
  }
  return false;
}

void WatchList::wake_sleepers() {
  std::erase_if(coming_up_, [](const auto& watcher) { return !watcher->coming_up(); });
  bool woken = true;
  while (woken) {
    woken = false;
    for (Sequence* sequence : due_) {
      if (coming_up_.size() >= kComingUp) return;
      woken = wake_one(*sequence) || woken;
    }
  }
  std::erase_if(due_, [](const Sequence* sequence) {
    return std::ranges::none_of(sequence->watches, &Watch::due);
  });
}

std::chrono::milliseconds pause_between_looks(std::chrono::nanoseconds quiet) {
  using std::chrono::milliseconds;
  if (quiet < std::chrono::seconds(1)) return milliseconds(1);
  if (quiet < std::chrono::minutes(1)) return milliseconds(5);
  return milliseconds(25);
}

}  // namespace relay::coordinator
