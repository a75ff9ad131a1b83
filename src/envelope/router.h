#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "envelope/changes.h"
#include "envelope/header_builder.h"
#include "envelope/output.h"
#include "envelope/plan.h"

namespace relay::envelope {

/// Where messages go, and what goes along with them.
struct Route {
  std::string_view subject;
  std::string_view key;
  std::span<const Header> headers;
  SharedError refused;  ///< set: what goes here cannot be sent
};

/// Decides for each row change of a record whether it passes the filter, and which route its
/// templates give it.
class Router {
 public:
  explicit Router(const Plan& plan) : plan_(plan) {}

  /// Begins a batch, then a record. `begin` is false when the record's headers cannot be read.
  void start(Output& output);
  bool begin(const Record& record);

  /// A route for a message that is about no single row. For an event, `row` is its payload when
  /// that is an object; else there is no row, and columns are NULL.
  Route route(std::string_view op, std::string_view key, const RowView& row, bool event);

  /// The rows of a delta as changes: deletes and updates in the order of the deleted rows, then
  /// inserts in the order of the inserted ones. `rows` holds `deleted` deleted rows first.
  /// `refresh`: all of them are rows of a new state.
  void delta(const Rows& rows, std::size_t deleted, bool refresh);
  /// One change that a source has told as such.
  void change(const Rows& rows, Change change);

  std::span<const Change> changes() const { return changes_; }
  const Route& at(std::uint32_t route) const { return routes_[route]; }
  std::size_t routes() const { return routes_.size(); }
  JsonReader& reader() { return reader_; }

  /// Pairs the rows of a delta without routing them: whether all of them are updates.
  bool all_updates(const Rows& rows, std::size_t deleted);

  SharedError refusal(std::string_view code, std::string_view what, std::string_view remedy);

 private:
  // What one route renders to, as one text with its parts' ends.
  struct Rendering {
    std::string text;
    std::size_t subject_end = 0;
    std::size_t key_end = 0;
    std::vector<std::size_t> header_ends;
    SharedError refused;

    friend bool operator==(const Rendering&, const Rendering&) = default;
    std::string_view subject() const { return std::string_view(text).substr(0, subject_end); }
    std::string_view key() const {
      return std::string_view(text).substr(subject_end, key_end - subject_end);
    }
  };
  enum class Passes : std::uint8_t { yes, no, refused };

  void clear_changes();
  void judge(const Rows& rows);
  void single(const Rows& rows, Change change);
  void pair(const Rows& rows, std::uint32_t old_row, std::uint32_t new_row);
  void update(const Rows& rows, std::uint32_t old_row, std::uint32_t new_row);
  bool changes_key(const Rows& rows, std::uint32_t old_row, std::uint32_t new_row);
  void push(Change change, const Rendering& rendering);
  void render(Rendering& into, std::string_view op, const Rows& rows, std::uint32_t row);
  void render_templates(Rendering& into, std::string_view default_key, const RowView& row);
  bool read_key(const Rows& rows, std::uint32_t row);
  /// {"column":value, ...} of a row whose key is known.
  std::string_view key_object(const Rows& rows, std::uint32_t row);
  std::uint32_t intern(const Rendering& rendering);
  Route make(const Rendering& rendering);
  void refuse(Rendering& rendering, SharedError why);
  SharedError missing(const ColumnPath& column);

  const Plan& plan_;
  Output* output_ = nullptr;
  JsonReader reader_;
  HeaderBuilder headers_;
  KeyMatcher matcher_;
  Variables variables_;
  std::string outbox_id_;
  std::string key_;
  std::string key_object_;

  std::vector<std::uint32_t> partner_;
  std::vector<Passes> passes_;
  std::map<std::uint32_t, SharedError> why_refused_;  // by row
  std::vector<Change> changes_;
  std::vector<Change> inserts_;  // to be put behind the deletes and updates
  std::vector<Route> routes_;
  std::unordered_map<std::string, std::uint32_t> route_of_;
  std::string_view constant_subject_;  // where all messages of a batch have the same one
  Rendering rendering_;
  Rendering old_rendering_;
  Rendering last_;  // what the route of the change before this one was made of
  std::uint32_t last_route_ = 0;
  std::map<std::string, SharedError, std::less<>> refusals_;
};

}  // namespace relay::envelope
