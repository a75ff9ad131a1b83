#include "outbox/row_decoder.h"

#include <endian.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "postgres/connection.h"

namespace relay::outbox {
namespace {

constexpr std::int64_t kMaxBytes = 1000;

/// Values as a server sends them: the columns of a row, or of a composite value.
class Values {
 public:
  Values& null() { return column(std::nullopt); }
  Values& bytes(std::string_view text) { return column(text); }
  Values& integer(std::int64_t value) {
    const auto wire = htobe64(static_cast<std::uint64_t>(value));
    return column(std::string_view(reinterpret_cast<const char*>(&wire), sizeof wire));
  }
  Values& boolean(bool value) { return column(std::string_view(value ? "\1" : "\0", 1)); }
  Values& jsonb(const std::string& text) { return column("\1" + text); }
  Values& uuid() {
    return column("\x0f\x1e\x2d\x3c\x4b\x5a\x69\x78\x87\x96\xa5\xb4\xc3\xd2\xe1\xf0");
  }

  /// (record_send in utils/adt/rowtypes.c)
  Values& composite(const Values& values) {
    std::string wire;
    append(wire, static_cast<std::uint32_t>(values.columns_.size()));
    for (const auto& bytes : values.columns_) {
      append(wire, 0);
      append(wire, bytes ? static_cast<std::uint32_t>(bytes->size()) : UINT32_MAX);
      if (bytes) wire += *bytes;
    }
    return column(wire);
  }

  postgres::PgResult row() const {
    postgres::PgResult result(PQmakeEmptyPGresult(nullptr, PGRES_SINGLE_TUPLE));
    char name[] = "column";
    std::vector<PGresAttDesc> attributes(columns_.size(), PGresAttDesc{name, 0, 0, 1, 0, 0, 0});
    PQsetResultAttrs(result.get(), static_cast<int>(attributes.size()), attributes.data());
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      std::string bytes = columns_[i].value_or("");
      PQsetvalue(result.get(), 0, static_cast<int>(i), columns_[i] ? bytes.data() : nullptr,
                 columns_[i] ? static_cast<int>(bytes.size()) : -1);
    }
    return result;
  }

 private:
  static void append(std::string& to, std::uint32_t value) {
    const std::uint32_t wire = htobe32(value);
    to.append(reinterpret_cast<const char*>(&wire), sizeof wire);
  }
  Values& column(std::optional<std::string_view> bytes) {
    columns_.push_back(bytes ? std::optional(std::string(*bytes)) : std::nullopt);
    return *this;
  }
  std::vector<std::optional<std::string>> columns_;
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
Values head() {
  Values row;
  row.integer(42).uuid().integer(1000000).integer(1).integer(0);
  return row;
}

/// Those that seldom say anything.
Values seldom(bool claim_check, bool has_payload, const std::string& headers = {}) {
  Values values;
  values.null().boolean(claim_check).boolean(has_payload);
  return headers.empty() ? values.null() : values.jsonb(headers);
}

TEST(RowDecoder, DecodesADelta) {
  RowDecoder decoder(outbox(), kMaxBytes);
  const auto wire = head()
                        .jsonb(R"({"v": 1, "inserted": [{"id": 1}], "refresh_mode": "FULL"})")
                        .composite(seldom(false, true, R"({"traceparent": "00-1"})"))
                        .row();
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
  RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto wire = head().null().composite(seldom(false, true)).row();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row);
  ASSERT_TRUE(row->record.refused);
  EXPECT_EQ(row->record.refused->code, "record_too_large");
  EXPECT_EQ(row->record.refused->error_class, ErrorClass::rejected);
  EXPECT_EQ(row->record.id, 42);
}

TEST(RowDecoder, AnUnknownPayloadVersionIsRefused) {
  RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto wire = head().jsonb(R"({"v": 2})").composite(seldom(true, true)).row();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row && row->record.refused);
  EXPECT_EQ(row->record.refused->code, "payload_version");
  EXPECT_FALSE(row->claim_check);
}

TEST(RowDecoder, AClaimCheckIsKnownByColumnOrPayload) {
  RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto by_column = head().jsonb(R"({"v": 1})").composite(seldom(true, true)).row();
  EXPECT_TRUE(decoder.decode_row(by_column.get(), arena)->claim_check);
  const auto by_payload = head().jsonb(R"({"v": 1, "claim_check": true})").null().row();
  EXPECT_TRUE(decoder.decode_row(by_payload.get(), arena)->claim_check);
}

TEST(RowDecoder, AnEventIsPassedOnAsItIs) {
  RowDecoder decoder(outbox(true), kMaxBytes);
  Arena arena;
  const auto wire = head().jsonb(R"({"v": 7})").null().bytes("order.placed").null().row();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_TRUE(row);
  const auto& event = std::get<Event>(row->record.content);
  EXPECT_EQ(event.payload, R"({"v": 7})");
  EXPECT_EQ(event.type, "order.placed");
  EXPECT_EQ(event.key, "");
  EXPECT_FALSE(row->record.refused);
}

TEST(RowDecoder, AnAnswerThatIsTooShortIsAnError) {
  RowDecoder decoder(outbox(), kMaxBytes);
  Arena arena;
  const auto wire = Values().integer(1).row();
  const auto row = decoder.decode_row(wire.get(), arena);
  ASSERT_FALSE(row);
  EXPECT_EQ(row.error().error_class, ErrorClass::misconfigured);
}

TEST(RowDecoder, DecodesARowOfAClaimCheck) {
  RowDecoder decoder(outbox(), kMaxBytes);
  const auto wire =
      Values().composite(Values().integer(7).boolean(true).jsonb(R"({"id": 1})")).row();
  const auto row = decoder.decode_delta_row(wire.get());
  ASSERT_TRUE(row);
  EXPECT_EQ(row->number, 7);
  EXPECT_TRUE(row->inserted);
  EXPECT_EQ(row->data, R"({"id": 1})");
  const auto large = Values().composite(Values().integer(8).boolean(false).null()).row();
  EXPECT_EQ(decoder.decode_delta_row(large.get())->data, "");
}

TEST(RowDecoder, QuotesTheNamesOfTables) {
  RowDecoder decoder(outbox(), kMaxBytes);
  EXPECT_NE(decoder.rows_sql().find(R"(pgtrickle."outbox_""orders" o)"), std::string::npos);
}

TEST(RowDecoder, AStepInAnAdoptedOutboxMustSayHowFarItLooked) {
  OutboxInfo info = outbox(true);
  info.incarnation = "0f14d0ab-9605-4a62-a9e4-5ed26688389b";
  const RowDecoder ours(info, kMaxBytes);
  EXPECT_TRUE(ours.check_end(false));
  info.adopted = true;
  const RowDecoder adopted(info, kMaxBytes);
  EXPECT_TRUE(adopted.check_end(true));
  const auto changed = adopted.check_end(false);
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().error_class, ErrorClass::transient);
  EXPECT_NE(adopted.rows_sql().find("relay_adopted_rows('0f14d0ab-"), std::string::npos);
}

}  // namespace
}  // namespace relay::outbox
