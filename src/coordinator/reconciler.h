#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/deadline.h"

namespace relay::coordinator {

/// Decides what this instance does with the pipelines of its group: which it takes over, hands
/// over, starts, stops, restarts and forgets. It is told what has happened and says what is to be
/// done next; the caller does it. It guarantees:
/// - a pipeline is started only while this instance owns it, and never while it still runs;
/// - a lease is given up only after its pipeline has ended;
/// - a pipeline whose configuration changed is stopped once, and starts again under the same lease;
/// - a pipeline that was removed ends, its lease is given up, and it is forgotten.
/// Pure: no I/O, clock or thread.
class Reconciler {
 public:
  using Names = std::vector<std::string>;
  using Time = SteadyClock::time_point;

  /// How many pipelines may be on their way up at once: a thousand that start together do not make
  /// a thousand connections.
  static constexpr std::size_t kStartingAtOnce = 16;

  enum class Run { none, running, stopping };
  /// Where one pipeline stands.
  struct Placement {
    std::string fingerprint;    ///< of its configuration
    bool wanted = true;         ///< the configuration has it
    bool owned = false;         ///< this instance holds its lease
    bool handing_over = false;  ///< its lease is given up when it has ended
    Run run = Run::none;
    Time not_before{};  ///< it is not started earlier
  };

  /// A pipeline of the configuration.
  struct Wanted {
    std::string name;
    std::string fingerprint;
  };
  struct Changes {
    Names added;
    Names changed;  ///< were known with another configuration
    Names stop;     ///< those that run and have changed or are not wanted any more
  };
  /// The configuration was read: `wanted` is all of it.
  Changes follow(std::span<const Wanted> wanted);

  /// The instances that share the pipelines.
  struct Group {
    std::size_t live = 1;       ///< this one included
    std::optional<bool> leads;  ///< leader mode: whether this one is the leader
  };
  struct Exchange {
    Names hand_over;        ///< beyond this instance's share
    Names stop;             ///< those of them that run
    Names free_to_take;     ///< pipelines that this instance does not own
    std::size_t limit = 0;  ///< how many of these it may take
    std::size_t total = 0;  ///< pipelines that the group shares
  };
  /// What the fair share asks for. What is handed over is chosen from the end of the list of names.
  Exchange balance(const Group& group);
  /// The leases of these pipelines are this instance's now.
  void took(std::span<const std::string> names);

  /// The pipelines to be started now; from here on they count as running. `coming_up` of those that
  /// run are still on their way up.
  Names start(Time now, std::size_t coming_up);
  /// It could not be made: it is started again at `again`.
  void not_made(const std::string& name, Time again);
  /// A running pipeline came to an end of its own: it is to be stopped. `hand_over`: its lease is
  /// given up then. `again`: not to be started sooner.
  void broke_off(const std::string& name, bool hand_over, std::optional<Time> again);
  /// A stopping pipeline has ended.
  void ended(const std::string& name);

  struct Leaving {
    Names release;  ///< leases to be given up
    Names removed;  ///< those of them whose pipeline the configuration does not have any more
    Names forget;   ///< pipelines that are over; this object knows them no longer
  };
  /// What is given up and forgotten now that its pipeline has ended.
  Leaving leave();

  /// Every lease is lost, and the caller has ended every pipeline.
  void lost();

  /// A name that `follow` said and `leave` has not forgotten.
  const Placement& at(const std::string& name) const { return placements_.at(name); }

 private:
  std::map<std::string, Placement> placements_;
};

}  // namespace relay::coordinator
