#include "schema/installed.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>

#include "postgres/array.h"
#include "schema/embedded.h"
#include "schema/superseded.h"

namespace relay::schema {

namespace {

using postgres::Param;

/// The oldest version of the database side that a relay of this program works with. A migration
/// that the relay cannot do without raises it.
constexpr int kOldestUsable = 4;

constexpr std::string_view kUndefinedTable = "42P01";
constexpr std::string_view kUndefinedSchema = "3F000";
constexpr std::string_view kUndefinedColumn = "42703";
constexpr std::string_view kUndefinedFunction = "42883";
constexpr std::string_view kNoPrivilege = "42501";
constexpr std::string_view kLocked = "55P03";

std::string_view statement() {
  for (const EmbeddedFile& file : embedded_files()) {
    if (file.name == "installed.sql") return file.text;
  }
  return "";
}

/// The tables, views and sequences that are needed: a database may have thousands of others.
std::string needed_relations() {
  std::vector<Param> names;
  for (const auto& [title, object] : needed_manifest()) {
    if (object.kind == "table" || object.kind == "view" || object.kind == "sequence") {
      names.emplace_back(object.name);
    }
  }
  return postgres::text_array(names);
}

}  // namespace

int version() {
  return RELAY_SCHEMA_VERSION;
}

bool may_explain(const Error& error) {
  constexpr std::array kCodes{kUndefinedTable, kUndefinedSchema, kUndefinedColumn,
                              kUndefinedFunction, kNoPrivilege};
  return std::ranges::find(kCodes, error.code) != kCodes.end();
}

Result<Manifest> read_installed(postgres::Connection& connection, Deadline deadline,
                                std::stop_token stop) {
  const auto rows = connection.query(statement(), {needed_relations()}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  Manifest manifest;
  for (int row = 0; row < rows->size(); ++row) add_line(manifest, rows->text(row, 0));
  return manifest;
}

Result<std::vector<Difference>> differences_now(postgres::Connection& connection, Deadline deadline,
                                                std::stop_token stop) {
  auto found = read_installed(connection, deadline, stop);
  if (!found) return fail(found.error());
  const auto superseded = take_superseded(*found, connection, deadline, stop);
  if (!superseded) return fail(superseded.error());
  auto all = differences(needed_manifest(), *found);
  all.insert(all.end(), superseded->begin(), superseded->end());
  const auto rows = connection.query(
      "select is_problem, message, remedy from pgtrickle.relay_differences()", {}, deadline, stop);
  // What keeps the database side from answering is among the differences, or a role lacks rights.
  if (!rows && may_explain(rows.error()) && !connection.in_transaction()) return all;
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) {
    all.push_back(
        {rows->boolean(row, 0), std::string(rows->text(row, 1)), std::string(rows->text(row, 2))});
  }
  std::stable_partition(all.begin(), all.end(),
                        [](const Difference& one) { return one.is_problem; });
  return all;
}

Result<void> refuse_other_version(postgres::Connection& connection, Deadline deadline,
                                  std::stop_token stop) {
  // A session that locks this table must not keep the relay from starting.
  if (auto set = connection.script("set lock_timeout to '500ms'", deadline, stop); !set) return set;
  const auto newest = connection.query(
      "select coalesce(max(version), 0) from pgtrickle.relay_schema_history", {}, deadline, stop);
  const auto reset = connection.script("set lock_timeout to 0", deadline, stop);
  if (!newest) {
    const bool cannot_tell = may_explain(newest.error()) || newest.error().code == kLocked;
    // A transaction cannot go on after an error.
    if (!cannot_tell || connection.in_transaction()) return fail(newest.error());
    return reset;
  }
  if (!reset) return reset;
  std::int64_t found = newest->integer(0, 0);
  if (found < kOldestUsable) {
    // What was installed with `init --dry-run` is not in that history.
    const auto migrated = connection.query(
        "select coalesce(max(number), 0) from pgtrickle_internal.migrations", {}, deadline, stop);
    if (!migrated && migrated.error().code == kNoPrivilege) return {};
    if (!migrated && (!may_explain(migrated.error()) || connection.in_transaction())) {
      return fail(migrated.error());
    }
    if (migrated) found = std::max(found, migrated->integer(0, 0));
  }
  if (found >= kOldestUsable && found <= version()) return {};
  if (found > version()) {
    return fail(ErrorClass::misconfigured, std::string(kNewerSchema),
                fmt::format("the database side has version {}, and this program knows {} at most",
                            found, version()),
                "use the program of the version that installed it, or a later one");
  }
  return fail(ErrorClass::misconfigured, std::string(kOlderSchema),
              fmt::format("the database side has version {}, and this program needs {} or later",
                          found, kOldestUsable),
              "run `pgtrickle-relay init` of this program's version against this database: relays "
              "of the earlier version go on meanwhile and afterwards");
}

}  // namespace relay::schema
