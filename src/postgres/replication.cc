#include "postgres/replication.h"

#include <fmt/core.h>

#include <utility>

#include "postgres/byte_reader.h"
#include "postgres/clock.h"

namespace relay::postgres {

namespace {

std::uint64_t now_on_postgres_clock() {
  const auto since = std::chrono::system_clock::now() - kEpoch;
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(since).count());
}

void append(std::string& message, std::uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) {
    message += static_cast<char>(value >> shift & 0xFFu);
  }
}

std::string quote_text(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c;
  }
  return quoted + '\'';
}

/// What the operator has to change for a refused session or command.
void advise(Error& error) {
  if (error.code == "42501") {
    error.remedy = "ALTER ROLE ... REPLICATION; managed servers have a role to grant instead";
  } else if (error.code == "53300") {
    error.remedy =
        "raise max_wal_senders, and restart the server, or end what holds them: SELECT "
        "* FROM pg_stat_replication";
  } else if (error.code == "53400") {
    error.remedy =
        "raise max_replication_slots, and restart the server, or drop what holds them: "
        "SELECT * FROM pg_replication_slots";
  } else if (error.code == "08P01") {  // how poolers refuse the parameter `replication`
    error.remedy =
        "connect to PostgreSQL itself, since poolers give no replication sessions; or set reader "
        "to table";
  } else {
    return;
  }
  error.error_class = ErrorClass::misconfigured;
}

}  // namespace

Result<std::unique_ptr<ReplicationConnection>> ReplicationConnection::open(
    Connection::Options options, std::stop_token stop) {
  options.replication = true;
  auto session = Connection::open(options, std::move(stop));
  if (!session) {
    Error error = session.error();
    advise(error);
    return fail(std::move(error));
  }
  return std::unique_ptr<ReplicationConnection>(new ReplicationConnection(std::move(*session)));
}

Error ReplicationConnection::unexpected(std::string_view what) const {
  return misconfigured("replication", fmt::format("PostgreSQL at {}: {}", endpoint(), what),
                       "connect to PostgreSQL itself, not to a pooler or another server of its "
                       "protocol");
}

Result<ReplicationConnection::System> ReplicationConnection::identify(Deadline deadline,
                                                                      std::stop_token stop) {
  const auto rows = session_->command("IDENTIFY_SYSTEM", deadline, stop);
  if (!rows) return fail(rows.error());
  const auto position = rows->size() == 1 ? parse_lsn(rows->text(0, 2)) : std::nullopt;
  if (!position) return fail(unexpected("IDENTIFY_SYSTEM gave no position"));
  const auto start = session_->command("select extract(epoch from pg_postmaster_start_time())",
                                       deadline, std::move(stop));
  if (!start) return fail(start.error());
  return System{std::string(rows->text(0, 0)), static_cast<std::uint32_t>(rows->integer(0, 1)),
                *position, std::string(start->text(0, 0))};
}

Result<ReplicationConnection::NewSlot> ReplicationConnection::create_slot(std::string_view name,
                                                                          SlotOptions options,
                                                                          Deadline deadline,
                                                                          std::stop_token stop) {
  const auto rows = session_->command(
      fmt::format("CREATE_REPLICATION_SLOT {}{} LOGICAL pgoutput (SNAPSHOT 'export'{})",
                  Connection::quote_identifier(name), options.temporary ? " TEMPORARY" : "",
                  options.failover ? ", FAILOVER true" : ""),
      deadline, stop);
  if (!rows) {
    Error error = rows.error();
    advise(error);
    if (error.code == "55000" && ok()) return fail(without_slots(std::move(error), deadline, stop));
    return fail(std::move(error));
  }
  const auto point = rows->size() == 1 ? parse_lsn(rows->text(0, 1)) : std::nullopt;
  if (!point) return fail(unexpected("CREATE_REPLICATION_SLOT gave no position"));
  return NewSlot{*point, std::string(rows->text(0, 2))};
}

/// Adds the setting for which the server makes no logical slots. Its message is in its language.
Error ReplicationConnection::without_slots(Error error, Deadline deadline, std::stop_token stop) {
  const auto settings = session_->command(
      "select current_setting('wal_level'), current_setting('max_replication_slots')", deadline,
      std::move(stop));
  if (!settings) return error;
  if (settings->text(0, 0) != "logical") {
    error.remedy = "ALTER SYSTEM SET wal_level = logical; and restart the server";
  } else if (settings->text(0, 1) == "0") {
    error.remedy = "ALTER SYSTEM SET max_replication_slots = 10; and restart the server";
  }
  return error;
}

Result<void> ReplicationConnection::let_failover(std::string_view name, Deadline deadline,
                                                 std::stop_token stop) {
  return session_->script(
      fmt::format("ALTER_REPLICATION_SLOT {} (FAILOVER true)", Connection::quote_identifier(name)),
      deadline, std::move(stop));
}

Result<void> ReplicationConnection::drop_slot(std::string_view name, Deadline deadline,
                                              std::stop_token stop) {
  return session_->script("DROP_REPLICATION_SLOT " + Connection::quote_identifier(name), deadline,
                          std::move(stop));
}

Result<void> ReplicationConnection::start(std::string_view slot, const StreamOptions& options,
                                          Deadline deadline, std::stop_token stop) {
  std::string publications;
  for (const std::string& publication : options.publications) {
    if (!publications.empty()) publications += ',';
    publications += Connection::quote_identifier(publication);
  }
  auto started = session_->start_stream(
      fmt::format("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names "
                  "{}{}{})",
                  Connection::quote_identifier(slot), quote_text(publications),
                  options.messages ? ", messages 'true'" : "",
                  options.binary ? ", binary 'true'" : ""),
      deadline, std::move(stop));
  if (!started) {
    Error error = started.error();
    advise(error);
    return fail(std::move(error));
  }
  return {};
}

Result<ReplicationConnection::Event> ReplicationConnection::next(std::chrono::milliseconds patience,
                                                                 std::stop_token stop) {
  auto message = session_->receive(patience, std::move(stop));
  if (!message) return fail(message.error());
  message_ = std::move(*message);
  if (!message_) return std::monostate{};

  ByteReader in(message_.bytes());
  const char type = static_cast<char>(in.byte());
  const Lsn first{in.int64()};
  const Lsn second{type == 'w' ? in.int64() : 0};
  in.int64();  // the server's clock
  if (type == 'w' && in.ok()) return Data{first, second, in.rest()};
  const bool reply_requested = in.byte() != 0;
  if (type == 'k' && in.ok()) return Keepalive{first, reply_requested};
  return fail(unexpected(fmt::format("a message of unknown type {:#04x} in the stream", type)));
}

Result<void> ReplicationConnection::report(Lsn received, Lsn confirmed, Deadline deadline,
                                           std::stop_token stop) {
  std::string message = "r";
  append(message, received.value);
  append(message, confirmed.value);
  append(message, confirmed.value);
  append(message, now_on_postgres_clock());
  message += '\0';  // no answer is asked for
  return session_->send_to_stream(message, deadline, std::move(stop));
}

}  // namespace relay::postgres
