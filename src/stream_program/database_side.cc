#include "stream_program/database_side.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/deadline.h"
#include "core/digest.h"
#include "stream_program/embedded_sql.h"

namespace relay::stream_program {

namespace {

using postgres::Connection;

constexpr std::chrono::seconds kTimeout{60};
constexpr int kOldestServer = 150000;

/// The folders, in the order in which their files run.
constexpr std::array<std::string_view, 4> kFolders{"before/", "migrations/", "functions/",
                                                   "after/"};
/// It is the relay's, under another schema.
constexpr std::string_view kJsonValues = "150_json_values.sql";
constexpr std::string_view kJsonValuesHere = "functions/080_json_values.sql";
constexpr std::string_view kItsSchema = "pgtrickle_json";
constexpr std::string_view kOurSchema = "pgstream_json";

struct File {
  std::string name;
  std::string text;
};

std::string in_our_schema(std::string_view text) {
  std::string out;
  for (std::size_t at; (at = text.find(kItsSchema)) != text.npos;) {
    out.append(text.substr(0, at)).append(kOurSchema);
    text.remove_prefix(at + kItsSchema.size());
  }
  return out.append(text);
}

/// In the order in which they run.
std::vector<File> files() {
  std::vector<File> all;
  for (const SqlFile& file : embedded_sql()) {
    if (file.name.ends_with(kJsonValues)) {
      all.push_back({std::string(kJsonValuesHere), in_our_schema(file.text)});
    } else {
      all.push_back({std::string(file.name), std::string(file.text)});
    }
  }
  const auto order = [](const File& file) {
    const auto folder = std::ranges::find_if(
        kFolders, [&](std::string_view one) { return file.name.starts_with(one); });
    return std::pair(folder - kFolders.begin(), std::string_view(file.name));
  };
  std::ranges::sort(all, {}, order);
  return all;
}

std::string checksum(const std::vector<File>& all) {
  std::vector<std::string_view> texts;
  for (const File& file : all) texts.push_back(file.text);
  return hex(bytes_of(sha256(texts)));
}

/// Which program installed the database side, as far as there is one.
struct Installed {
  int version = 0;
  std::string checksum;
};

Result<Installed> installed(Connection& connection, Deadline deadline, std::stop_token stop) {
  Installed found;
  const auto table = connection.query("select to_regclass('pgstream.daemon_installed') is not null",
                                      {}, deadline, stop);
  if (!table) return fail(table.error());
  if (!table->boolean(0, 0)) return found;
  const auto rows =
      connection.query("select schema_version, checksum from pgstream.daemon_installed", {},
                       deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->empty()) return found;
  found.version = static_cast<int>(rows->integer(0, 0));
  found.checksum = rows->text(0, 1);
  return found;
}

Result<void> run_files(Connection& connection, const std::vector<File>& all, const std::string& sum,
                       Deadline deadline, std::stop_token stop) {
  for (const File& file : all) {
    if (auto done = connection.script(file.text, deadline, stop); !done) {
      return fail(done.error().in_context(file.name));
    }
  }
  const auto noted = connection.query(
      "insert into pgstream.daemon_installed (schema_version, checksum, program) "
      "values ($1::int, $2, $3) on conflict (only_row) do update set "
      "schema_version = excluded.schema_version, checksum = excluded.checksum, "
      "program = excluded.program, installed_at = now()",
      {std::to_string(RELAY_STREAM_SCHEMA_VERSION), sum, RELAY_VERSION}, deadline, std::move(stop));
  return noted ? Result<void>() : fail(noted.error());
}

/// What the role lacks, and which statement gives it that.
Error advised(Connection& connection, Error error, Deadline deadline) {
  error = error.in_context("installing the schema pgstream");
  if (error.code == "42501") {
    const auto who = connection.query(
        "select quote_ident(current_user), quote_ident(current_database())", {}, deadline, {});
    if (who && !who->empty()) {
      error.remedy = fmt::format(
          "let an owner of the database run: GRANT CREATE ON DATABASE {1} TO {0}; or start the "
          "program once with a role that may install it",
          who->text(0, 0), who->text(0, 1));
    }
  }
  return error;
}

}  // namespace

Result<void> check_server(Connection& connection, std::stop_token stop) {
  const auto server = connection.query(
      "select current_setting('server_version_num')::int, current_setting('server_version'), "
      "pg_is_in_recovery()",
      {}, Deadline::after(kTimeout), std::move(stop));
  if (!server) return fail(server.error());
  if (server->integer(0, 0) < kOldestServer) {
    return fail(misconfigured("server_version",
                              fmt::format("{}: postgres-stream needs PostgreSQL 15 or newer, and "
                                          "this server is {}",
                                          connection.endpoint(), server->text(0, 1)),
                              "upgrade the server, or name another one in pg_connection"));
  }
  if (server->boolean(0, 2)) {
    return fail(misconfigured(
        "standby",
        fmt::format("{} is a standby: nothing can be written there", connection.endpoint()),
        "name the primary in pg_connection.host"));
  }
  return {};
}

Result<bool> install(Connection& connection, std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  if (auto good = check_server(connection, stop); !good) return fail(good.error());
  const std::vector<File> all = files();
  const std::string sum = checksum(all);
  const auto is_ours = [&]() -> Result<bool> {
    const auto found = installed(connection, deadline, stop);
    if (!found) return fail(found.error());
    if (found->version > RELAY_STREAM_SCHEMA_VERSION) {
      return fail(misconfigured(
          "newer_schema",
          fmt::format("the schema pgstream has version {}, and this program knows {} at most",
                      found->version, RELAY_STREAM_SCHEMA_VERSION),
          "use the version of postgres-stream that installed it, or a later one"));
    }
    return found->checksum == sum;
  };
  const auto known = is_ours();
  if (!known) return fail(known.error());
  if (*known) return false;

  const auto change = [&]() -> Result<bool> {
    auto begun = connection.script(
        "begin; set local lock_timeout to '5s'; set local synchronous_commit to on; "
        "select pg_advisory_xact_lock(hashtextextended('pgstream installation', 0))",
        deadline, stop);
    if (!begun) return fail(begun.error());
    const auto meanwhile = is_ours();
    if (!meanwhile) return fail(meanwhile.error());
    if (!*meanwhile) {
      if (auto run = run_files(connection, all, sum, deadline, stop); !run) {
        return fail(run.error());
      }
    }
    if (auto done = connection.script("commit", deadline, stop); !done) return fail(done.error());
    return !*meanwhile;
  };
  auto changed = change();
  if (changed) return changed;
  if (connection.ok()) {
    if (auto undone = connection.script("rollback", deadline, stop); !undone) {
      return fail(undone.error());
    }
    return fail(advised(connection, changed.error(), deadline));
  }
  return changed;
}

}  // namespace relay::stream_program
