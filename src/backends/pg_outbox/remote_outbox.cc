#include "backends/pg_outbox/remote_outbox.h"

#include <fmt/core.h>

#include <utility>

namespace relay::pg_outbox {

namespace {

// The reader holds one for the page that it sent for ahead, one for what it looks at meanwhile; the
// sender writes the position by a third.
constexpr std::size_t kConnections = 3;
constexpr std::chrono::seconds kTimeout{15};

postgres::Connection::Options session(const Options& options, const std::string& pipeline) {
  postgres::Connection::Options session;
  session.url = options.url;
  session.application_name = "pgtrickle-relay " + pipeline;
  session.connect_timeout = options.connect_timeout;
  session.host_credentials = options.host_credentials;
  return session;
}

}  // namespace

Result<std::string> position_group(postgres::Pool* database, const std::string& group,
                                   std::stop_token stop) {
  if (!database) {
    return fail(ErrorClass::misconfigured, "no_database",
                "the relay's own database is not known, which the position is kept for",
                "set the relay's postgres_url, or the source's group");
  }
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = database->borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  const auto rows = (*lease)->query(
      "select s.system_identifier, d.oid from pg_catalog.pg_control_system() s, "
      "pg_catalog.pg_database d where d.datname = current_database()",
      {}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  return fmt::format("{}@{}-{}", group, rows->text(0, 0), rows->text(0, 1));
}

RemoteOutbox::RemoteOutbox(Options options, BackendContext context)
    : options_(std::move(options)),
      context_(std::move(context)),
      pool_(session(options_, context_.pipeline), kConnections),
      wake_(std::make_shared<Wake>()) {}

RemoteOutbox::~RemoteOutbox() = default;

Result<void> RemoteOutbox::make_reader(std::stop_token stop) {
  outbox::OutboxOptions options;
  options.outbox = options_.outbox;
  options.pipeline = context_.pipeline;
  options.worker_id = context_.worker_id;
  options.start = context_.options.start;
  options.max_record_bytes = context_.options.max_record_bytes;
  options.delta_max_rows = context_.options.delta_max_rows;
  options.control = context_.database;
  options.group = options_.group;
  options.settled = context_.settled;
  if (options.group.empty()) {
    auto group = position_group(context_.database, context_.group, std::move(stop));
    if (!group) return fail(group.error());
    options.group = std::move(*group);
  }
  reader_ = std::make_unique<outbox::OutboxSource>(std::move(options), &pool_, wake_);
  return {};
}

Result<void> RemoteOutbox::open(std::stop_token stop) {
  if (!reader_) {
    if (auto made = make_reader(stop); !made) return made;
  }
  return reader_->open(std::move(stop));
}

Result<RecordBatch> RemoteOutbox::read(const ReadLimits& limits, Deadline deadline,
                                       std::stop_token stop) {
  while (true) {
    auto batch =
        reader_->read(limits, deadline.earlier(Deadline::after(options_.poll_interval)), stop);
    if (!batch || !batch->empty() || deadline.passed() || stop.stop_requested()) return batch;
    wake_->poke();
  }
}

Result<void> RemoteOutbox::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  return reader_->acknowledge(settled, {});
}

Result<RecordBatch> RemoteOutbox::read_range(std::int64_t from, std::int64_t to,
                                             const std::string& suffix, const ReadLimits& limits,
                                             std::stop_token stop) {
  if (!reader_) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  return reader_->read_range(from, to, suffix, limits, std::move(stop));
}

std::optional<std::int64_t> RemoteOutbox::lag() {
  // This is asked while a slow sink makes the reader wait, too: its statement must not keep the
  // other server from cleaning up then.
  pool_.trim();
  return reader_ ? reader_->lag() : std::nullopt;
}

bool RemoteOutbox::more_to_come() const {
  return reader_ && reader_->more_to_come();
}

void RemoteOutbox::close() {
  if (reader_) reader_->close();
  pool_.trim({});
}

}  // namespace relay::pg_outbox
