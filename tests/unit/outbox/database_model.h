#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "outbox/horizon.h"

/// What an outbox looks like from outside while transactions write to it.
namespace relay::outbox::model {

using Ids = std::vector<std::int64_t>;

inline Holder session(const std::string& name) {
  return {name, false, 1};
}
inline Holder prepared(const std::string& name) {
  return {name, true, 0};
}

/// A transaction takes the lock, draws ids, writes their rows, and ends in one of four ways. Rows
/// become visible before the lock is released, as in PostgreSQL; anything may happen in between.
class Database {
 public:
  /// One step of one of the writers, chosen by `choice`.
  void step(std::uint32_t choice) {
    const auto writer = static_cast<int>(choice % kWriters);
    const std::uint32_t what = choice / kWriters;
    Transaction& t = open_[writer];
    switch (t.stage) {
      case Stage::none:
        if (ending_) return;
        t = {};
        t.name = fmt::format("{}/{}", writer, ++lxid_[writer]);
        t.stage = Stage::locked;
        return;
      case Stage::locked:
        if (!ending_ && what % 3 != 0) {
          t.ids.push_back(++sequence_);
        } else if (what % 7 == 0) {
          t.stage = Stage::none;  // rolled back: lock and rows are gone
        } else if (what % 7 <= 2) {
          prepared_.push_back(t);
          prepared_.back().name = fmt::format("x{}", ++xid_);
          t.stage = Stage::none;
        } else {
          show(t);
        }
        return;
      case Stage::visible:
        t.stage = Stage::none;
        return;
    }
  }

  void step_prepared(std::uint32_t choice) {
    if (prepared_.empty()) return;
    const std::size_t index = choice % prepared_.size();
    Transaction& t = prepared_[index];
    if (t.stage == Stage::locked && (choice / 16) % 4 != 0) {
      show(t);
    } else {
      prepared_.erase(prepared_.begin() + static_cast<std::ptrdiff_t>(index));
    }
  }

  /// The server crashes: sessions are gone, prepared transactions are not.
  void crash() {
    for (auto& [writer, t] : open_) t.stage = Stage::none;
  }

  void end() { ending_ = true; }
  bool ended() const {
    return prepared_.empty() && std::all_of(open_.begin(), open_.end(), [](const auto& one) {
             return one.second.stage == Stage::none;
           });
  }
  std::int64_t sequence() const { return sequence_; }
  std::vector<Holder> holders() const {
    std::vector<Holder> holders;
    for (const auto& [writer, t] : open_) {
      if (t.stage != Stage::none) holders.push_back(session(t.name));
    }
    for (const Transaction& t : prepared_) holders.push_back(prepared(t.name));
    return holders;
  }
  Ids beyond(std::int64_t id, std::size_t limit) const {
    Ids ids;
    for (auto it = visible_.upper_bound(id); it != visible_.end() && ids.size() < limit; ++it) {
      ids.push_back(*it);
    }
    return ids;
  }
  Ids committed() const { return {visible_.begin(), visible_.end()}; }

 private:
  static constexpr std::uint32_t kWriters = 5;
  enum class Stage { none, locked, visible };
  struct Transaction {
    Stage stage = Stage::none;
    std::string name;
    Ids ids;
  };
  void show(Transaction& t) {
    visible_.insert(t.ids.begin(), t.ids.end());
    t.stage = Stage::visible;
  }

  std::map<int, Transaction> open_;
  std::map<int, int> lxid_;
  std::vector<Transaction> prepared_;
  std::set<std::int64_t> visible_;
  std::int64_t sequence_ = 0;
  int xid_ = 0;
  bool ending_ = false;
};

}  // namespace relay::outbox::model
