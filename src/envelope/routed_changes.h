#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "envelope/change_pairing.h"
#include "envelope/changes.h"
#include "envelope/plan.h"
#include "envelope/route_renderer.h"
#include "envelope/row_filter.h"

namespace relay::envelope {

/// The changes of one record that pass the filter, in the order in which they are sent, each with
/// its route: deletes and updates in the order of the deleted rows, then inserts in the order of
/// the inserted ones. An update whose rows go to different places is a delete there and an insert
/// here (`moved`). One thread at a time.
class RoutedChanges {
 public:
  /// Everything given here outlives the object.
  RoutedChanges(const Plan& plan, JsonReader& reader, Refusals& refusals, RouteRenderer& renderer)
      : plan_(plan), renderer_(renderer), filter_(plan.filter, reader, refusals) {}

  /// Holds the changes of a record until the next call. `paired`: all changes of its rows, as
  /// ChangePairing gives them.
  void set(const Rows& rows, std::span<const Change> paired);

  std::span<const Change> changes() const { return changes_; }
  const Route& route(const Change& change) const { return routes_[change.route]; }
  std::size_t routes() const { return routes_.size(); }

 private:
  void add(const Rows& rows, const Change& change);
  void add_single(const Rows& rows, const Change& change);
  void add_update(const Rows& rows, const Change& change);
  void push(Change change);
  std::uint32_t number_of(const RenderedRoute& rendered);

  const Plan& plan_;
  RouteRenderer& renderer_;
  RowFilter filter_;
  std::vector<Change> changes_;
  std::vector<Change> inserts_;  // put behind the others at the end
  std::vector<Route> routes_;
  std::unordered_map<std::string, std::uint32_t> numbers_;  // of routes
  RenderedRoute rendered_;                                  // of the change that is being added
  RenderedRoute old_rendered_;                              // of its old row
  RenderedRoute last_;                                      // of the change before
  std::uint32_t last_number_ = 0;
};

}  // namespace relay::envelope
