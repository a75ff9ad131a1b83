#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace relay::coordinator {

/// One who is told when a sequence moves, and woken if asleep then.
class Watcher {
 public:
  virtual ~Watcher() = default;
  /// The sequence stands at `last_value`: it moves before the row is visible.
  virtual void moved(std::int64_t last_value) = 0;
  virtual bool asleep() const = 0;
  /// It is to be told at once. One who is busy finds what is new by itself.
  virtual bool waits() = 0;
  virtual void wake() = 0;
  /// It was woken a moment ago, and is not at work yet.
  virtual bool coming_up() const = 0;
};

/// Decides which watchers are to be told and woken of what was seen of sequences. No watcher sleeps
/// through a value: one that is awake when it comes and falls asleep without another one is woken
/// once more. A thousand that sleep on one sequence do not come up together, and a watcher of
/// another sequence does not wait for them. Pure: no I/O, clock or thread.
class WatchList {
 public:
  static constexpr std::size_t kComingUp = 16;

  void add(const std::string& sequence, std::shared_ptr<Watcher> watcher);
  void remove(const Watcher& watcher);
  bool empty() const { return sequences_.empty(); }

  /// The names whose sequence is not known (any more): for these `resolve` is to be called.
  std::vector<std::string> unresolved() const;
  /// `oid` 0: there is no sequence of this name now. Where it was dropped, or is another one, its
  /// watchers are woken: their source says what that means.
  void resolve(const std::string& sequence, std::int64_t oid);
  /// Another session begins, maybe on another server: all names are to be resolved anew.
  void unresolve_all();
  /// The sequence cannot be looked at now: it is left out until its name is resolved anew.
  void set_aside(std::int64_t oid);

  /// The sequences to look at, and the value that is known of each, as PostgreSQL arrays.
  struct Question {
    std::string oids;
    std::string known;
  };
  const Question& question();
  bool nothing_to_ask() const { return by_oid_.empty(); }
  bool anybody_waits() const;

  /// The sequence stands at a value other than the known one.
  void saw(std::int64_t oid, std::int64_t value);
  /// The sequence was dropped: as if its name had been resolved to nothing.
  void gone(std::int64_t oid);
  /// Wakes those who sleep and have not been woken for the newest value. To be called after each
  /// look, whether something was seen or not: they may have fallen asleep since. No more than
  /// kComingUp are on their way up at once; the others are woken by later calls.
  void wake_sleepers();

 private:
  struct Watch {
    std::shared_ptr<Watcher> watcher;
    bool due = false;  ///< to be woken when it sleeps
  };
  struct Sequence {
    std::int64_t oid = 0;  ///< as its name was last resolved
    bool asked = false;    ///< it is among those that are looked at
    std::int64_t value = 0;
    std::vector<Watch> watches;
  };
  void make_due(Sequence& sequence);
  bool wake_one(Sequence& sequence);
  void resolve(Sequence& sequence, std::int64_t oid);

  std::map<std::string, Sequence> sequences_;
  std::map<std::int64_t, Sequence*> by_oid_;
  std::set<Sequence*> due_;  ///< those with a watch that is due
  std::vector<std::shared_ptr<Watcher>> coming_up_;
  Question question_;
  bool question_made_ = false;
};

/// How long to wait between two looks when nothing has moved for so long.
std::chrono::milliseconds pause_between_looks(std::chrono::nanoseconds quiet);

}  // namespace relay::coordinator
