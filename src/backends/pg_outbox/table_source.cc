#include "backends/pg_outbox/table_source.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "backends/pg_outbox/table_start.h"
#include "core/log.h"
#include "core/pause.h"
#include "outbox/look.h"

namespace relay::pg_outbox {

namespace {

constexpr std::size_t kConnections = 1;
constexpr std::chrono::seconds kTimeout{30};
constexpr std::chrono::milliseconds kWaitForWriters{2};

// What the columns of a page are.
enum Column { id, xid, created_at, event_id, event_type, key, headers, payload, size, hash };

postgres::Connection::Options session(const Options& options, const std::string& pipeline) {
  postgres::Connection::Options session;
  session.url = options.url;
  session.application_name = "pgtrickle-relay " + pipeline;
  session.connect_timeout = options.connect_timeout;
  session.host_credentials = options.host_credentials;
  return session;
}

int digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

/// A bytea as the server writes it: \x and two digits a byte.
std::string_view bytes_of(std::string_view text, Arena& arena) {
  if (!text.starts_with("\\x")) return arena.copy(text);
  text.remove_prefix(2);
  char* out = arena.allocate(text.size() / 2);
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    out[i / 2] = static_cast<char>(digit(text[i]) * 16 + digit(text[i + 1]));
  }
  return {out, text.size() / 2};
}

}  // namespace

TableSource::TableSource(Options options, BackendContext context)
    : options_(std::move(options)),
      context_(std::move(context)),
      pool_(session(options_, context_.pipeline), kConnections),
      position_(context_.database, options_.group.empty() ? context_.group : options_.group,
                context_.pipeline, context_.worker_id) {}

Result<void> TableSource::open(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = pool_.borrow(deadline, stop);
  if (!lease) return fail(lease.error().in_context("opening the table"));
  auto opened = open_on(**lease, deadline, std::move(stop));
  if (!opened) return fail(opened.error().in_context("opening the table"));
  return {};
}

Result<void> TableSource::open_on(postgres::Connection& connection, Deadline deadline,
                                  std::stop_token stop) {
  auto table = open_table(connection, options_, context_.options.max_record_bytes, deadline, stop);
  if (!table) return fail(table.error());
  table_ = std::move(*table);
  order_ = outbox::ColumnOrder(table_->columns);
  auto owned = claim(connection, stop);
  if (!owned) return fail(owned.error());
  const auto last = read_newest(connection, *table_, deadline, stop);
  if (!last) return fail(last.error());
  // Numbers that are drawn again must not be skipped.
  const bool redrawn = owned->skipped_seen && owned->skipped.last() > last->drawn;
  if (owned->position.id > last->readable || redrawn) {
    const auto restarted = position_.restart_if_allowed(stop);
    if (!restarted) return fail(restarted.error());
    if (!*restarted) {
      const std::int64_t passed = redrawn ? owned->skipped.last() : owned->position.id;
      return fail(ErrorClass::misconfigured, "table_rewound",
                  fmt::format("table {} was rewound: its newest number is {}, and {} was passed "
                              "(a failover to a standby that lagged, or a restored backup)",
                              table_->table, last->drawn, passed),
                  fmt::format("pgtrickle-relay resume {} --accept-loss, which delivers everything "
                              "that the table holds",
                              context_.pipeline));
    }
    owned = state::Ownership{};
  }
  read_to_ = owned->position;
  skipped_ = std::move(owned->skipped);
  handed_out_ = read_to_.id;
  horizon_ = outbox::Horizon(read_to_.id);
  sequence_ = last->drawn;
  first_beyond_ = 0;
  return {};
}

/// Takes the position. Where a new one begins is found out only where there is none.
Result<state::Ownership> TableSource::claim(postgres::Connection& connection,
                                            std::stop_token stop) {
  const auto exists = position_.exists(table_->incarnation, stop);
  if (!exists) return fail(exists.error());
  if (*exists) return position_.claim(table_->incarnation, {}, std::move(stop));
  const auto start = find_start(connection, *table_, context_.options.start, stop);
  if (!start) return fail(start.error());
  return position_.claim(table_->incarnation, *start, std::move(stop));
}

Result<RecordBatch> TableSource::read(const ReadLimits& limits, Deadline deadline,
                                      std::stop_token stop) {
  if (!table_) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  while (true) {
    bool again = false;
    {
      auto lease = pool_.borrow(deadline, stop);
      if (!lease) return fail(lease.error());
      auto batch = read_page(**lease, limits, stop);
      if (!batch || !batch->empty()) return batch;
      again = more_;
      if (!again && !table_->by_xid) {
        const auto advanced = look(**lease, stop);
        if (!advanced) return fail(advanced.error());
        again = *advanced;
      }
    }
    if (again) continue;
    const auto wait = horizon_.waiting() ? kWaitForWriters : options_.poll_interval;
    if (!pause(deadline.earlier(Deadline::after(wait)), stop)) return RecordBatch();
    if (deadline.passed()) return RecordBatch();
  }
}

Result<RecordBatch> TableSource::read_page(postgres::Connection& connection,
                                           const ReadLimits& limits, std::stop_token stop) {
  RecordBatch batch;
  jump();
  horizon_.begin_read();
  first_beyond_ = 0;
  more_ = false;
  const std::int64_t from = table_->by_xid ? read_to_.id : horizon_.frontier();
  const postgres::Param params[] = {std::to_string(from), std::to_string(read_to_.row),
                                    std::to_string(limits.records)};
  if (auto started = connection.start(table_->page, params); !started) {
    return fail(started.error().in_context("reading the table"));
  }
  std::size_t seen = 0;
  while (true) {
    auto row = connection.next_row(kTimeout, stop);
    if (!row) {
      // What was taken from this statement is not handed out: it is read again.
      table_.reset();
      return fail(row.error().in_context("reading the table"));
    }
    if (!*row) break;
    ++seen;
    if (!take_row(postgres::Rows(std::move(*row)), batch) || batch.arena.size() >= limits.bytes) {
      connection.abandon(Deadline::after(kTimeout));
      return batch;
    }
  }
  more_ = seen >= limits.records;
  if (!more_) horizon_.end_read();
  return batch;
}

/// Rows that are skipped are not read where they come next.
void TableSource::jump() {
  if (table_->by_xid) {
    // The transaction that was read last is passed as a whole only if it is skipped.
    const std::int64_t end = skipped_.run_end(read_to_.id);
    if (end != 0) read_to_ = {end, INT64_MAX, {}};
    return;
  }
  const std::int64_t end = skipped_.run_end(horizon_.frontier() + 1);
  if (end != 0) horizon_.jump_to(end);
}

/// False: the row stands behind a gap that may still be filled.
bool TableSource::take_row(const postgres::Rows& row, RecordBatch& batch) {
  const std::int64_t number = row.integer(0, Column::id);
  if (!table_->by_xid && !horizon_.pass(number)) {
    first_beyond_ = number;
    return false;
  }
  const std::int64_t transaction = table_->by_xid ? row.integer(0, Column::xid) : 0;
  if (skipped_.contains(table_->by_xid ? transaction : number)) {
    if (table_->by_xid) read_to_ = {transaction, number, {}};
    return true;
  }
  const Record& record = batch.add(record_of(row, batch), table_->shape);
  read_to_ = {record.id, record.row, {}};
  handed_out_ = record.id;
  return true;
}

std::string_view TableSource::payload_of(const postgres::Rows& row, Arena& arena) {
  if (row.is_null(0, Column::payload)) return {};
  const std::string_view text = row.text(0, Column::payload);
  if (table_->payload_is_bytes) return bytes_of(text, arena);
  char* const copied = arena.allocate(text.size());
  std::memcpy(copied, text.data(), text.size());
  order_.restore(copied, text.size());
  return {copied, text.size()};
}

Record TableSource::record_of(const postgres::Rows& row, RecordBatch& batch) {
  const auto text = [&](Column column) {
    return row.is_null(0, column) ? std::string_view() : batch.arena.copy(row.text(0, column));
  };
  Record record;
  record.outbox_id = row.integer(0, Column::id);
  record.id = table_->by_xid ? row.integer(0, Column::xid) : record.outbox_id;
  record.row = table_->by_xid ? record.outbox_id : 0;
  record.pgt_id = text(Column::hash);
  record.headers = text(Column::headers);
  if (!row.is_null(0, Column::created_at)) {
    record.created_at = Timestamp(std::chrono::microseconds(row.integer(0, Column::created_at)));
  } else {
    record.created_at =
        std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
  }
  Event event;
  event.id = text(Column::event_id);
  event.type = row.is_null(0, Column::event_type) ? "insert" : text(Column::event_type);
  event.key = text(Column::key);
  event.content_type = batch.arena.copy(table_->content_type);
  event.payload = payload_of(row, batch.arena);
  record.content = event;
  if (row.is_null(0, Column::payload) && !row.is_null(0, Column::size)) {
    record.refused = share(Error{
        ErrorClass::rejected,
        "record_too_large",
        fmt::format("row {} of {} has {} bytes, more than max_record_bytes ({})", record.outbox_id,
                    table_->table, row.integer(0, Column::size), context_.options.max_record_bytes),
        "raise max_record_bytes of the pipeline",
        {}});
  }
  return record;
}

/// Asks who may still fill a gap. True: a new statement would advance.
Result<bool> TableSource::look(postgres::Connection& connection, std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  const auto last = read_newest(connection, *table_, deadline, stop);
  if (!last) return fail(last.error());
  sequence_ = last->drawn;
  if (sequence_ <= horizon_.frontier()) return false;
  outbox::OutboxInfo table;
  table.oid = table_->oid;
  table.sequence = table_->sequence;
  const auto holders = outbox::read_holders(connection, table, deadline, std::move(stop));
  if (!holders) return fail(holders.error());
  horizon_.observe(sequence_, *holders);
  return horizon_.can_advance(first_beyond_);
}

Result<void> TableSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  auto written = position_.settle(settled);
  if (!written) return fail(written.error().in_context("writing the position"));
  return {};
}

std::optional<std::int64_t> TableSource::lag() {
  if (!table_ || table_->by_xid) return std::nullopt;
  // What was passed behind the last row that was handed out was skipped, or rolled back.
  const std::int64_t settled = position_.settled().id;
  const std::int64_t passed = settled >= handed_out_ ? horizon_.frontier() : settled;
  return std::max<std::int64_t>(0, sequence_ - passed);
}

void TableSource::close() {
  const auto flushed = position_.flush();
  if (!flushed) log::failure("position_not_written", context_.pipeline, flushed.error());
  table_.reset();
  pool_.trim({});
}

}  // namespace relay::pg_outbox
