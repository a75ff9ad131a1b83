#include "outbox/row_decoder.h"

#include <endian.h>
#include <fmt/core.h>

#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "core/uuid.h"
#include "outbox/payload_decoder.h"
#include "postgres/clock.h"

namespace relay::outbox {

namespace {

constexpr std::int64_t kMicrosecondsTo2000 = postgres::kEpoch.time_since_epoch().count();
constexpr char kJsonbVersion = 1;

/// A jsonb value, or NULL where its text may be longer than the limit. No compression of a column
/// shrinks it more than 255 times, so the cheap test nearly always decides.
std::string limited(std::string_view column, std::int64_t limit) {
  return fmt::format(
      "case when pg_column_size({0}) * 255::bigint <= {1} then {0} "
      "when octet_length({0}::text) <= {1} then {0} end",
      column, limit);
}

/// Walks over the columns of a row in binary form. Columns that seldom say anything come together
/// as one composite value, NULL when none does: that costs the server the least.
class Fields {
 public:
  explicit Fields(const PGresult* row) : row_(row), columns_(PQnfields(row)) {}
  /// A composite value (record_send in utils/adt/rowtypes.c): the number of columns, then type,
  /// length (-1: NULL) and bytes of each.
  explicit Fields(std::string_view composite) : left_(composite) { integer<std::uint32_t>(); }

  bool ok() const { return ok_; }

  /// The next column's bytes.
  std::optional<std::string_view> next() {
    if (row_ != nullptr) return next_of_row();
    integer<std::uint32_t>();  // its type
    const auto size = static_cast<std::int32_t>(integer<std::uint32_t>());
    if (size < 0 || !ok_) return std::nullopt;
    if (static_cast<std::size_t>(size) > left_.size()) {
      ok_ = false;
      return std::nullopt;
    }
    const std::string_view bytes = left_.substr(0, static_cast<std::size_t>(size));
    left_.remove_prefix(bytes.size());
    return bytes;
  }
  std::int64_t next_integer() {
    const auto bytes = next();
    std::uint64_t value = 0;
    if (bytes && bytes->size() == sizeof value) std::memcpy(&value, bytes->data(), sizeof value);
    return static_cast<std::int64_t>(be64toh(value));
  }
  bool next_boolean() {
    const auto bytes = next();
    return bytes && !bytes->empty() && bytes->front() != 0;
  }
  /// The text of a jsonb value: behind one byte with the version of the format.
  std::optional<std::string_view> next_jsonb() {
    const auto bytes = next();
    if (!bytes) return std::nullopt;
    if (bytes->empty() || bytes->front() != kJsonbVersion) {
      ok_ = false;
      return std::nullopt;
    }
    return bytes->substr(1);
  }

 private:
  std::optional<std::string_view> next_of_row() {
    const int column = column_++;
    if (column >= columns_) ok_ = false;
    if (!ok_) return std::nullopt;
    const auto length = static_cast<std::size_t>(PQgetlength(row_, 0, column));
    if (length == 0 && PQgetisnull(row_, 0, column) != 0) return std::nullopt;
    return std::string_view(PQgetvalue(row_, 0, column), length);
  }

  template <class T>
  T integer() {
    T value = 0;
    if (left_.size() < sizeof value) {
      ok_ = false;
      return 0;
    }
    std::memcpy(&value, left_.data(), sizeof value);
    left_.remove_prefix(sizeof value);
    return static_cast<T>(be32toh(value));
  }

  const PGresult* row_ = nullptr;
  int columns_ = 0;
  int column_ = 0;
  std::string_view left_;
  bool ok_ = true;
};

std::string_view uuid_of(std::optional<std::string_view> bytes, Arena& arena) {
  return bytes && bytes->size() == kUuidBytes ? uuid_text(*bytes, arena) : std::string_view();
}

Timestamp timestamp(std::int64_t microseconds) {
  constexpr std::int64_t kInfinity = INT64_MAX - kMicrosecondsTo2000;
  if (microseconds >= kInfinity || microseconds == INT64_MIN) return Timestamp{};
  return Timestamp(std::chrono::microseconds(microseconds + kMicrosecondsTo2000));
}

tl::unexpected<Error> not_understood(std::string_view what) {
  return fail(ErrorClass::misconfigured, "row_format",
              fmt::format("{} has a form that this relay does not know", what),
              "run `pgtrickle-relay init` of this version, or use the relay that fits the schema");
}

/// The arena's copy of a text, to be changed.
std::span<char> copy(std::string_view text, Arena& arena) {
  char* const copied = arena.allocate(text.size());
  std::memcpy(copied, text.data(), text.size());
  return {copied, text.size()};
}

void take_payload(std::span<char> text, ColumnOrder& order, OutboxRow& row) {
  Delta& delta = std::get<Delta>(row.record.content);
  auto payload = decode_payload({text.data(), text.size()});
  if (!payload) {
    row.record.refused = share(std::move(payload.error()));
    return;
  }
  for (const std::string_view rows : {payload->inserted, payload->deleted}) {
    if (!rows.empty()) order.restore(text.data() + (rows.data() - text.data()), rows.size());
  }
  delta.inserted = payload->inserted;
  delta.deleted = payload->deleted;
  delta.refresh_mode = payload->refresh_mode;
  delta.refresh_duration_ms = payload->refresh_duration_ms;
  delta.full_refresh = payload->full_refresh;
  row.claim_check = row.claim_check || payload->claim_check;
  row.key_columns = payload->key_columns;
}

std::string adopted_rows_sql(const OutboxInfo& outbox, std::int64_t max_record_bytes) {
  return fmt::format(
      "select o.id, o.pgt_id, o.created_at, 0::bigint, 0::bigint, {}, "
      "case when o.headers is not null or o.payload is null then "
      "row(null::uuid, false, o.payload is not null, o.headers) end, o.event_type, o.event_key "
      "from {} o order by o.id, o.pgt_id",
      limited("o.payload", max_record_bytes),
      adopted_call(outbox, "relay_adopted_rows",
                   "$1::bigint, $2::bigint, $3::bigint, passed => $4::bigint, mark => $5::uuid, "
                   "known => $6::text"));
}

std::string rows_sql(const OutboxInfo& outbox, std::int64_t max_record_bytes) {
  if (outbox.adopted) return adopted_rows_sql(outbox, max_record_bytes);
  return fmt::format(
      "select o.id, o.pgt_id, o.created_at, o.inserted_count::bigint, o.deleted_count::bigint, {}, "
      "case when o.refresh_id is not null or o.is_claim_check or o.headers is not null "
      "or o.payload is null then "
      "row(o.refresh_id, coalesce(o.is_claim_check, false), o.payload is not null, o.headers) "
      "end{} "
      "from {} o where o.id > $1::bigint and o.id <= $2::bigint{} order by o.id limit $3::bigint",
      limited("o.payload", max_record_bytes),
      outbox.events ? ", o.event_type::text, o.event_key::text" : "", qualified(outbox.table),
      // Without a column in it, the condition is asked once a statement.
      outbox.name_holds.empty() ? "" : " and " + outbox.name_holds);
}

std::string delta_sql(const OutboxInfo& outbox, std::int64_t max_record_bytes) {
  if (outbox.delta_table.empty()) return {};
  return fmt::format(
      "select row(d.row_num::bigint, d.row_op = 'INSERT', {}) from {} d "
      "where d.outbox_id = $1::bigint and d.row_num > $2::bigint "
      "order by d.row_num limit $3::bigint",
      limited("d.row_data", max_record_bytes), qualified(outbox.delta_table));
}

}  // namespace

std::string snapshot_rows_sql(std::string_view call, std::string_view more,
                              std::int64_t max_record_bytes) {
  return fmt::format(
      "select o.id, o.pgt_id, o.created_at, o.inserted_count, o.deleted_count, {}, "
      "row(o.refresh_id, false, o.payload is not null, o.headers){} from {} o",
      limited("o.payload", max_record_bytes), more, call);
}

SnapshotClaimEnd snapshot_claim_end(const PGresult* row) {
  Fields fields(row);
  constexpr int kColumnsBefore = 7;
  for (int column = 0; column < kColumnsBefore; ++column) fields.next();
  const std::int64_t last_row = fields.next_integer();
  return {last_row, fields.next_boolean()};
}

SharedError record_too_large(std::int64_t max_record_bytes) {
  return share(
      Error{ErrorClass::rejected,
            "record_too_large",
            fmt::format("the row is larger than max_record_bytes ({} bytes) and was not fetched",
                        max_record_bytes),
            "raise max_record_bytes of this pipeline, then replay the row",
            {}});
}

RowDecoder::RowDecoder(const OutboxInfo& outbox, std::int64_t max_record_bytes)
    : outbox_(outbox),
      max_record_bytes_(max_record_bytes),
      order_(outbox.columns),
      rows_sql_(outbox::rows_sql(outbox, max_record_bytes)),
      delta_sql_(outbox::delta_sql(outbox, max_record_bytes)) {}

Result<OutboxRow> RowDecoder::decode_row(const PGresult* result, Arena& arena) {
  Fields fields(result);
  Result<OutboxRow> decoded;
  OutboxRow& row = *decoded;
  Record& record = row.record;
  record.id = record.outbox_id = fields.next_integer();
  record.pgt_id = record.mark = uuid_of(fields.next(), arena);
  if (outbox_.adopted && record.pgt_id.empty()) {
    row.is_end = true;
    constexpr int kColumnsBetween = 6;
    for (int column = 0; column < kColumnsBetween; ++column) fields.next();
    if (const auto history = fields.next()) row.history = *history;
    return decoded;
  }
  record.created_at = timestamp(fields.next_integer());
  Delta& delta = std::get<Delta>(record.content);
  delta.inserted_count = fields.next_integer();
  delta.deleted_count = fields.next_integer();
  const auto payload = fields.next_jsonb();
  bool has_payload = true;
  if (const auto rest = fields.next()) {
    Fields seldom(*rest);
    record.refresh_id = uuid_of(seldom.next(), arena);
    row.claim_check = seldom.next_boolean() && !outbox_.events;
    has_payload = seldom.next_boolean();
    const auto headers = seldom.next_jsonb();
    if (headers && *headers != "null") record.headers = arena.copy(*headers);
    if (!seldom.ok()) return not_understood(fmt::format("outbox {}", outbox_.table));
  }
  const std::span<char> bytes = payload ? copy(*payload, arena) : std::span<char>();
  const std::string_view text(bytes.data(), bytes.size());
  row.bytes = text.size() + record.headers.size();

  if (has_payload && !payload) record.refused = record_too_large(max_record_bytes_);
  if (outbox_.events) {
    Event event;
    event.payload = text.empty() ? std::string_view("null") : text;
    if (const auto type = fields.next()) event.type = arena.copy(*type);
    if (const auto key = fields.next()) event.key = arena.copy(*key);
    record.content = event;
  } else {
    if (!record.refused) take_payload(bytes, order_, row);
    if (record.refused) row.claim_check = false;
  }
  if (!fields.ok()) return not_understood(fmt::format("outbox {}", outbox_.table));
  return decoded;
}

Result<void> RowDecoder::check_end(bool said_end) const {
  if (!outbox_.adopted || said_end) return {};
  return fail(ErrorClass::transient, "outbox_changed",
              fmt::format("the table of outbox {} was truncated or written anew: the position is "
                          "looked at again",
                          outbox_.table),
              "");
}

const std::shared_ptr<const TableShape>& RowDecoder::shape_with_key(std::string_view key_columns) {
  const auto known = shapes_.find(key_columns);
  if (known != shapes_.end()) return known->second;
  TableShape shape = *outbox_.shape;
  shape.key_columns.clear();
  if (!read_texts(key_columns, shape.key_columns)) shape.key_columns.clear();
  return shapes_.emplace(key_columns, std::make_shared<const TableShape>(std::move(shape)))
      .first->second;
}

Result<DeltaRow> RowDecoder::decode_delta_row(const PGresult* result) const {
  Fields fields(std::string_view(PQgetvalue(result, 0, 0),
                                 static_cast<std::size_t>(PQgetlength(result, 0, 0))));
  DeltaRow row;
  row.number = fields.next_integer();
  row.inserted = fields.next_boolean();
  const auto data = fields.next_jsonb();
  if (data) row.data = *data;
  if (!fields.ok()) return not_understood(fmt::format("claim checks of {}", outbox_.table));
  return row;
}

}  // namespace relay::outbox
