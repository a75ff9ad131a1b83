#include "outbox/row_decoder.h"

#include <endian.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <string>

#include "postgres/connection.h"

namespace relay::outbox {
namespace {

constexpr std::int64_t kMaxBytes = 1000;

/// A composite value as a server sends it.
class Composite {
 public:
  Composite& null() { return column(std::nullopt); }
  Composite& bytes(std::string_view text) { return column(text); }
  Composite& integer(std::int64_t value) {
    const auto wire = htobe64(static_cast<std::uint64_t>(value));
    return column(std::string_view(reinterpret_cast<const char*>(&wire), sizeof wire));
  }
  Composite& boolean(bool value) { return column(std::string_view(value ? "\1" : "\0", 1)); }
  Composite& jsonb(const std::string& text) { return column("\1" + text); }
  Composite& uuid() {
    return column("\x0f\x1e\x2d\x3c\x4b\x5a\x69\x78\x87\x96\xa5\xb4\xc3\xd2\xe1\xf0");
  }

  postgres::PgResult result() const {
    std::string wire;
    append(wire, count_);
    wire += columns_;
    postgres::PgResult result(PQmakeEmptyPGresult(nullptr, PGRES_SINGLE_TUPLE));
    char name[] = "row";
    PGresAttDesc column{name, 0, 0, 1, 0, 0, 0};
    PQsetResultAttrs(result.get(), 1, &column);
    PQsetvalue(result.get(), 0, 0, wire.data(), static_cast<int>(wire.size()));
    return result;
  }

 private:
  static void append(std::string& to, std::uint32_t value) {
    const std::uint32_t wire = htobe32(value);
    to.append(reinterpret_cast<const char*>(&wire), sizeof wire);
  }
  Composite& column(std::optional<std::string_view> bytes) {
    ++count_;
    append(columns_, 0);
    append(columns_, bytes ? static_cast<std::uint32_t>(bytes->size()) : UINT32_MAX);
    if (bytes) columns_ += *bytes;
    return *this;
  }
  std::uint32_t count_ = 0;
  std::string columns_;
};

OutboxInfo outbox(bool events = false) {
  OutboxInfo info;
  info.table = "outbox_\"orders";
  info.delta_table = "outbox_delta_rows_orders";
  info.events = events;
  info.shape = std::make_shared<const TableShape>(TableShape{"orders", {"id"}});
  return info;
}

/// The columns before the payload.
Composite head(bool claim_check = false) {
  Composite row;
  row.integer(42).uuid().null().integer(1000000).boolean(claim_check).integer(1).integer(0);
  return row;
}

TEST(RowDecoder, DecodesADelta) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  const auto wire = head()
                        .boolean(true)
                        .jsonb(R"({"v": 1, "inserted": [{"id": 1}], "refresh_mode": "FULL"})")
                        .jsonb(R"({"traceparent": "00-1"})")
                        .result();
  Arena arena;
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row);
  const Record& record = row->record;
  EXPECT_EQ(record.id, 42);
  EXPECT_EQ(record.row, 0);
  EXPECT_EQ(record.outbox_id, 42);
  EXPECT_EQ(record.pgt_id, "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0");
  EXPECT_EQ(record.mark, record.pgt_id);
  EXPECT_EQ(record.refresh_id, "");
  // One second into the year 2000.
  EXPECT_EQ(record.created_at.time_since_epoch().count(), 946684801000000);
  EXPECT_EQ(record.headers, R"({"traceparent": "00-1"})");
  const auto& delta = std::get<Delta>(record.content);
  EXPECT_EQ(delta.inserted, R"([{"id": 1}])");
  EXPECT_EQ(delta.deleted, "");
  EXPECT_EQ(delta.inserted_count, 1);
  EXPECT_EQ(delta.refresh_mode, "FULL");
  EXPECT_FALSE(record.refused);
}

TEST(RowDecoder, APayloadThatWasNotFetchedIsRefusedAndItsNeighboursAreNot) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto wire = head().boolean(true).null().null().result();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row);
  ASSERT_TRUE(row->record.refused);
  EXPECT_EQ(row->record.refused->code, "record_too_large");
  EXPECT_EQ(row->record.refused->error_class, ErrorClass::rejected);
  EXPECT_EQ(row->record.id, 42);
}

TEST(RowDecoder, AnUnknownPayloadVersionIsRefused) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto wire = head(true).boolean(true).jsonb(R"({"v": 2})").null().result();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row && row->record.refused);
  EXPECT_EQ(row->record.refused->code, "payload_version");
  EXPECT_FALSE(row->claim_check);
}

TEST(RowDecoder, AClaimCheckIsKnownByColumnOrPayload) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto by_column = head(true).boolean(true).jsonb(R"({"v": 1})").null().result();
  EXPECT_TRUE(decoder.decode_row(by_column.get(), arena)->claim_check);
  const auto by_payload =
      head().boolean(true).jsonb(R"({"v": 1, "claim_check": true})").null().result();
  EXPECT_TRUE(decoder.decode_row(by_payload.get(), arena)->claim_check);
}

TEST(RowDecoder, AnEventIsPassedOnAsItIs) {
  const RowDecoder decoder(outbox(true), kMaxBytes);
  Arena arena;
  const auto wire =
      head().boolean(true).jsonb(R"({"v": 7})").null().bytes("order.placed").null().result();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row);
  const auto& event = std::get<Event>(row->record.content);
  EXPECT_EQ(event.payload, R"({"v": 7})");
  EXPECT_EQ(event.type, "order.placed");
  EXPECT_EQ(event.key, "");
  EXPECT_FALSE(row->record.refused);
}

TEST(RowDecoder, AnAnswerThatIsTooShortIsAnError) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto wire = Composite().integer(1).result();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_FALSE(row);
  EXPECT_EQ(row.error().error_class, ErrorClass::misconfigured);
}

TEST(RowDecoder, DecodesARowOfAClaimCheck) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  const auto wire = Composite().integer(7).boolean(true).jsonb(R"({"id": 1})").result();
  const auto row = decoder.decode_delta_row(wire.get());
  ASSERT_TRUE(row);
  EXPECT_EQ(row->number, 7);
  EXPECT_TRUE(row->inserted);
  EXPECT_EQ(row->data, R"({"id": 1})");
  const auto large = Composite().integer(8).boolean(false).null().result();
  EXPECT_EQ(decoder.decode_delta_row(large.get())->data, "");
}

TEST(RowDecoder, QuotesTheNamesOfTables) {
  const RowDecoder decoder(outbox(), kMaxBytes);
  EXPECT_NE(decoder.rows_sql().find(R"(pgtrickle."outbox_""orders" o)"), std::string::npos);
}

}  // namespace
}  // namespace relay::outbox
