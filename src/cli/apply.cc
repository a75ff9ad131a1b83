#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/terminal.h"
#include "config/catalog_file.h"
#include "config/file_entry.h"
#include "config/tree.h"
#include "core/deadline.h"
#include "core/text.h"

namespace relay::cli {

namespace {

using config::CatalogEntry;
using config::CatalogFile;
using postgres::Connection;

constexpr std::chrono::minutes kTimeout{10};
/// How often the difference is taken again because another session changed a pipeline meanwhile.
constexpr int kAttempts = 5;
constexpr std::string_view kConcurrent = "changed_meanwhile";
constexpr std::string_view kNoPrivilege = "42501";

/// Two at a time would each count on what the other one replaces.
constexpr std::string_view kLockApply = "select pgtrickle_internal.lock('apply of a file')";
/// Those that set_relay takes, too.
constexpr std::string_view kLockPipeline =
    "select pgtrickle_internal.lock('pipeline ' || $1::text)";

/// Differs when any pipeline of the catalog does.
constexpr std::string_view kVersion =
    "select md5(coalesce(string_agg(concat_ws(' ', p.row_version, p.name), e'\\n' "
    "order by p.name collate \"C\"), '')) from pgtrickle.relay_pipelines p";

/// Each pipeline of the file ($1) and of the catalog, with the keys that differ. Values are
/// compared as texts: as numbers, 1.0 and 1.00 are equal.
constexpr std::string_view kDifference = R"sql(
with wanted as (
  select w.number, w.name, w.direction, w.implied, w.enabled, w.config
  from jsonb_to_recordset($1::jsonb)
    as w (number int, name text, direction text, implied text, enabled boolean, config jsonb)),
pair as (
  select coalesce(w.name, k.name) as name, w.number, w.enabled, k.enabled as was_enabled,
         coalesce(nullif(w.direction, ''), k.direction, w.implied) as direction,
         coalesce(w.config, '{}') as config,
         case when jsonb_typeof(k.config) = 'object' then k.config else '{}' end as was
  from wanted w full join pgtrickle.list_relay_configs() k on k.name = w.name)
select p.name, p.number, p.direction, p.enabled, p.was_enabled, coalesce((
  select json_agg(d.key order by d.key collate "C") from (
    select coalesce(o.key, n.key) as key
    from jsonb_each(p.was) o full join jsonb_each(p.config) n on n.key = o.key
    where o.value::text is distinct from n.value::text
      and (jsonb_typeof(o.value) = 'object' and jsonb_typeof(n.value) = 'object') is not true
    union all
    select o.key || '.' || inside.key
    from jsonb_each(p.was) o join jsonb_each(p.config) n on n.key = o.key
    cross join lateral (
      select coalesce(x.key, y.key) as key
      from jsonb_each(case when jsonb_typeof(o.value) = 'object' then o.value else '{}' end) x
      full join jsonb_each(case when jsonb_typeof(n.value) = 'object' then n.value else '{}' end) y
        on y.key = x.key
      where x.value::text is distinct from y.value::text) inside
    where jsonb_typeof(o.value) = 'object' and jsonb_typeof(n.value) = 'object') d)::text, '[]')
from pair p order by p.name collate "C")sql";

enum class Kind { unchanged, created, changed, enabled, disabled, deleted, left_alone };

/// What becomes of one pipeline.
struct Change {
  Kind kind = Kind::unchanged;
  std::string name;
  std::string direction;
  const CatalogEntry* entry = nullptr;
  std::vector<std::string> keys;  ///< that differ
};

struct Outcome {
  std::vector<Change> changes;
  const CatalogEntry* culprit = nullptr;  ///< the entry that the database refused
};

std::string as_json(const std::vector<CatalogEntry>& entries) {
  std::string out = "[";
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const CatalogEntry& entry = entries[i];
    out += fmt::format(
        R"({}{{"number":{},"name":{},"direction":{},"implied":{},"enabled":{},"config":{}}})",
        i > 0 ? "," : "", i, json_string(entry.name), json_string(entry.direction),
        json_string(entry.implied_direction), entry.enabled, entry.json);
  }
  return out + ']';
}

Kind kind_of(const postgres::Rows& rows, int row, const std::vector<std::string>& keys,
             bool prune) {
  const bool wanted = !rows.is_null(row, 1);
  const bool known = !rows.is_null(row, 4);
  if (!wanted) return prune ? Kind::deleted : Kind::left_alone;
  if (!known) return Kind::created;
  if (!keys.empty()) return Kind::changed;
  if (rows.boolean(row, 3) == rows.boolean(row, 4)) return Kind::unchanged;
  return rows.boolean(row, 3) ? Kind::enabled : Kind::disabled;
}

std::vector<std::string> texts_of(std::string_view json_array) {
  std::vector<std::string> texts;
  if (const auto node = config::parse_json(json_array, ""); node && node->array()) {
    for (const config::Node& element : *node->array()) texts.push_back(*element.text());
  }
  return texts;
}

Result<std::vector<Change>> difference(Connection& connection, const CatalogFile& file, bool prune,
                                       Deadline deadline) {
  const auto rows = connection.query(kDifference, {as_json(file.entries)}, deadline, {});
  if (!rows) return fail(rows.error());
  std::vector<Change> changes;
  for (int row = 0; row < rows->size(); ++row) {
    Change change;
    change.name = rows->text(row, 0);
    change.direction = rows->text(row, 2);
    if (!rows->is_null(row, 1)) {
      change.entry = &file.entries[static_cast<std::size_t>(rows->integer(row, 1))];
      change.keys = texts_of(rows->text(row, 5));
    }
    change.kind = kind_of(*rows, row, change.keys, prune);
    const bool also_switched =
        change.kind == Kind::changed && rows->boolean(row, 3) != rows->boolean(row, 4);
    if (also_switched) change.keys.emplace_back("enabled");
    changes.push_back(std::move(change));
  }
  return changes;
}

Result<std::string> version(Connection& connection, Deadline deadline) {
  const auto rows = connection.query(kVersion, {}, deadline, {});
  if (!rows) return fail(rows.error());
  return std::string(rows->text(0, 0));
}

/// The function that makes a pipeline of a direction. Every name in it is qualified: it runs under
/// the search_path of the role, by which a pipeline's outbox is looked up.
std::string setting(std::string_view direction) {
  const std::string_view function = direction == "forward"   ? "set_relay_outbox"
                                    : direction == "reverse" ? "set_relay_inbox"
                                                             : "set_relay";
  return fmt::format(
      "select pgtrickle.{}(name => $1::pg_catalog.text, config => $2::pg_catalog.jsonb, "
      "enabled => $3::pg_catalog.bool)",
      function);
}

Result<void> carry_out(Connection& connection, const Change& change, Deadline deadline) {
  Result<postgres::Rows> done;
  switch (change.kind) {
    case Kind::unchanged:
    case Kind::left_alone:
      return {};
    case Kind::created:
    case Kind::changed: {
      if (auto path = connection.script("set local search_path to default", deadline, {}); !path) {
        return path;
      }
      done = connection.query(
          setting(change.direction),
          {change.name, change.entry->json, std::string(change.entry->enabled ? "true" : "false")},
          deadline, {});
      if (!done) return fail(done.error());
      return connection.script("set local search_path to pg_catalog, pg_temp", deadline, {});
    }
    case Kind::enabled:
      done = connection.query("select pgtrickle.enable_relay($1)", {change.name}, deadline, {});
      break;
    case Kind::disabled:
      done = connection.query("select pgtrickle.disable_relay($1)", {change.name}, deadline, {});
      break;
    case Kind::deleted:
      done = connection.query("select pgtrickle.delete_relay($1)", {change.name}, deadline, {});
      break;
  }
  if (!done) return fail(done.error());
  return {};
}

bool writes(const Change& change) {
  return change.kind != Kind::unchanged && change.kind != Kind::left_alone;
}

/// Takes the locks that changes of these pipelines take, and sees whether any of them came first.
Result<void> lock_changed(Connection& connection, const std::vector<Change>& changes,
                          const std::string& version_before, Deadline deadline) {
  for (const Change& change : changes) {
    if (!writes(change)) continue;
    const auto locked = connection.query(kLockPipeline, {change.name}, deadline, {});
    if (!locked) return fail(locked.error());
  }
  const auto now = version(connection, deadline);
  if (!now) return fail(now.error());
  if (*now == version_before) return {};
  return fail(ErrorClass::transient, std::string(kConcurrent),
              "another session keeps changing pipelines while the difference is taken",
              "nothing was changed: run it again");
}

/// A file without any pipeline is rather a mistake than the wish to have none.
Result<void> refuse_to_delete_all(const CatalogFile& file, const std::vector<Change>& changes) {
  if (!file.entries.empty() || std::ranges::none_of(changes, writes)) return {};
  return fail(misconfigured(
      "empty_file",
      fmt::format(
          "the file has no pipeline, and --prune would delete every one of the database: {}",
          changes.size()),
      "nothing was changed; to delete one, SELECT pgtrickle.delete_relay('...')"));
}

/// One transaction, without its end.
Result<void> change_all(Connection& connection, const CatalogFile& file, bool prune,
                        Deadline deadline, Outcome& outcome) {
  if (auto begun = connection.script("begin", deadline, {}); !begun) return begun;
  if (const auto locked = connection.query(kLockApply, {}, deadline, {}); !locked) {
    return fail(locked.error());
  }
  const auto before = version(connection, deadline);
  if (!before) return fail(before.error());
  auto changes = difference(connection, file, prune, deadline);
  if (!changes) return fail(changes.error());
  outcome = {std::move(*changes), nullptr};
  if (auto refused = refuse_to_delete_all(file, outcome.changes); !refused) return refused;
  if (auto locked = lock_changed(connection, outcome.changes, *before, deadline); !locked) {
    return locked;
  }
  for (const Change& change : outcome.changes) {
    if (auto done = carry_out(connection, change, deadline); !done) {
      outcome.culprit = change.entry;
      return done;
    }
  }
  return {};
}

/// All or nothing. A dry run does the same, and rolls back.
Result<void> apply_file(Connection& connection, const CatalogFile& file, bool prune, bool dry_run,
                        Outcome& outcome) {
  const Deadline deadline = Deadline::after(kTimeout);
  for (int attempt = 1;; ++attempt) {
    auto done = change_all(connection, file, prune, deadline, outcome);
    if (done) return connection.script(dry_run ? "rollback" : "commit", deadline, {});
    if (connection.ok()) {
      if (auto undone = connection.script("rollback", deadline, {}); !undone) return undone;
    }
    if (done.error().code != kConcurrent || attempt == kAttempts) return done;
  }
}

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::unchanged:
      return "unchanged";
    case Kind::created:
      return "created";
    case Kind::changed:
      return "changed";
    case Kind::enabled:
      return "enabled";
    case Kind::disabled:
      return "disabled";
    case Kind::deleted:
      return "deleted";
    case Kind::left_alone:
      return "not_in_file";
  }
  return "";
}

Colour colour_of(Kind kind) {
  if (kind == Kind::created || kind == Kind::enabled) return Colour::green;
  return kind == Kind::deleted ? Colour::red : Colour::yellow;
}

void print_text(const std::vector<Change>& changes, bool dry_run) {
  const Terminal& out = Terminal::out();
  std::size_t unchanged = 0;
  std::vector<std::string_view> left;
  for (const Change& change : changes) {
    unchanged += change.kind == Kind::unchanged ? 1 : 0;
    if (change.kind == Kind::left_alone) left.push_back(change.name);
    if (!writes(change)) continue;
    std::string more;
    if (change.kind == Kind::created && !change.entry->enabled) more = "  (disabled)";
    if (change.kind == Kind::changed) more = fmt::format("  {}", fmt::join(change.keys, ", "));
    fmt::print("{}  {}{}\n",
               out.painted(colour_of(change.kind), fmt::format("{:<8}", name_of(change.kind))),
               change.name, more);
  }
  fmt::print("{} unchanged\n", unchanged);
  if (!left.empty()) {
    fmt::print("{} not in the file, left alone (--prune deletes them): {}\n", left.size(),
               fmt::join(left, ", "));
  }
  if (dry_run) fmt::print("dry run: nothing was changed\n");
}

void print_changes_json(const std::vector<Change>& changes, bool dry_run) {
  fmt::print(R"({{"dry_run":{},"pipelines":[)", dry_run);
  for (const Change& change : changes) {
    std::string keys;
    for (const std::string& key :
         change.kind == Kind::changed ? change.keys : std::vector<std::string>()) {
      keys += (keys.empty() ? "" : ",") + json_string(key);
    }
    fmt::print(R"({}{{"name":{},"change":"{}","keys":[{}]}})", &change == changes.data() ? "" : ",",
               json_string(change.name), name_of(change.kind), keys);
  }
  fmt::print("]}}\n");
}

Result<CatalogFile> read_file(const Context& context, const std::string& path) {
  std::string text;
  if (path == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    auto read = read_config_file(path, "check the path given with --file");
    if (!read) return fail(read.error());
    text = std::move(*read);
  }
  return config::parse_catalog_file(context.registry.catalogue(), text,
                                    path == "-" ? "standard input" : path);
}

/// Neither of two pipelines of one name runs, where one is in the configuration file.
void refuse_names_of_file(const Context& context, CatalogFile& file) {
  for (const CatalogEntry& entry : file.entries) {
    const auto same =
        std::ranges::find(context.file_pipelines, entry.name, &config::PipelineConfig::name);
    if (same == context.file_pipelines.end()) continue;
    file.problems.push_back(config::same_name(entry.name, entry.place, same->place));
  }
}

int refuse(const std::vector<Error>& problems) {
  for (const Error& problem : problems) print_error(problem);
  fmt::print(stderr, "nothing was changed\n");
  return kInvalidConfiguration;
}

}  // namespace

int apply(const Context& context, const ApplyArguments& arguments) {
  auto file = read_file(context, arguments.file);
  if (!file) return refuse({file.error()});
  refuse_names_of_file(context, *file);
  if (!file->problems.empty()) return refuse(file->problems);
  auto connection = connect(context);
  if (!connection) return failed(connection.error());
  Outcome outcome;
  auto done = apply_file(**connection, *file, arguments.prune, arguments.dry_run, outcome);
  if (!done && outcome.culprit) {
    const bool is_mistake =
        done.error().error_class != ErrorClass::transient && done.error().code != kNoPrivilege;
    done.error().message = fmt::format("{}: {}", outcome.culprit->place, done.error().message);
    if (is_mistake) return refuse({done.error()});
  }
  if (!done) return failed(done.error());
  if (context.json) {
    print_changes_json(outcome.changes, arguments.dry_run);
  } else {
    print_text(outcome.changes, arguments.dry_run);
  }
  return kOk;
}

}  // namespace relay::cli
