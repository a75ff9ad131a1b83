#include "stream/maintenance.h"

#include <exception>
#include <string>

#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"

namespace relay::stream {

namespace {

constexpr std::chrono::seconds kLookEvery{30};
constexpr std::chrono::minutes kTimeout{5};
constexpr std::string_view kNoPrivilege = "42501";

}  // namespace

void Maintenance::run(std::stop_token stop) {
  bool begun = false;
  do {
    Result<void> done;
    try {
      done = look(!begun, stop);
    } catch (const std::exception& exception) {
      done = fail(shortage::error_of(exception, "maintaining partitions"));
    }
    if (stop.stop_requested()) return;
    if (done) {
      begun = true;
      log::recovered("partitions", "");
    } else {
      log::failure("partitions", "", done.error());
    }
  } while (pause(Deadline::after(kLookEvery), stop));
}

Result<void> Maintenance::look(bool anyway, std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto session = postgres::Connection::open(options_.database, stop);
  if (!session) return fail(session.error());
  const std::string stream = std::to_string(options_.id);
  if (!anyway) {
    const auto due = (*session)->query(
        "select from pgstream.streams where id = $1::bigint and next_maintenance_at <= now()",
        {stream}, deadline, stop);
    if (!due) return fail(due.error());
    if (due->size() == 0) return {};
  }
  if (auto done = work(**session, deadline, stop); !done) return done;
  const auto noted = (*session)->query(
      "update pgstream.streams set next_maintenance_at = now() + interval '10 minutes' "
      "where id = $1::bigint",
      {stream}, deadline, std::move(stop));
  return noted ? Result<void>() : fail(noted.error());
}

Result<void> Maintenance::work(postgres::Connection& session, Deadline deadline,
                               std::stop_token stop) {
  // Another session may hold a lock for a moment: what is left is done later.
  auto patient = session.script("set lock_timeout to '200ms'", deadline, stop);
  if (!patient) return patient;
  const auto made = session.query("select pgstream.make_partitions()", {}, deadline, stop);
  if (!made) return fail(made.error());
  if (auto removed = remove_old(session, deadline, stop); !removed) return removed;
  const auto cleaned = session.query("select pgstream.clean_overflow()", {}, deadline, stop);
  return cleaned ? Result<void>() : fail(cleaned.error());
}

/// The database names the next statement of each partition; each is a transaction of its own, by a
/// member of pgstream_owner.
Result<void> Maintenance::remove_old(postgres::Connection& session, Deadline deadline,
                                     std::stop_token stop) {
  while (true) {
    const auto statements = session.query("select pgstream.partition_work()", {}, deadline, stop);
    if (!statements) return fail(statements.error());
    if (statements->size() == 0) return {};
    for (int row = 0; row < statements->size(); ++row) {
      const auto done = session.script(statements->text(row, 0), deadline, stop);
      if (!done && done.error().code == kNoPrivilege) {
        return remove_as_other(session, deadline, std::move(stop));
      }
      if (!done) return done;
    }
  }
}

/// For other roles the database runs the statements.
Result<void> Maintenance::remove_as_other(postgres::Connection& session, Deadline deadline,
                                          std::stop_token stop) {
  while (true) {
    const auto left = session.query("select pgstream.remove_partitions()", {}, deadline, stop);
    if (!left) return fail(left.error());
    if (left->integer(0, 0) == 0) return {};
  }
}

}  // namespace relay::stream
