#include "postgres/pgoutput.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace relay::postgres::pgoutput {
namespace {

/// Writes messages as the manual's "Logical Replication Message Formats" describes them.
class Writer {
 public:
  explicit Writer(char type) { byte(type); }

  Writer& byte(int value) {
    bytes_ += static_cast<char>(value);
    return *this;
  }
  Writer& int16(std::uint64_t value) { return integer(value, 2); }
  Writer& int32(std::uint64_t value) { return integer(value, 4); }
  Writer& int64(std::uint64_t value) { return integer(value, 8); }
  Writer& text(std::string_view value) {
    bytes_ += value;
    return byte(0);
  }
  Writer& sized(std::string_view value) {
    int32(value.size());
    bytes_ += value;
    return *this;
  }
  /// A row; a value is its kind and what it holds: "tone", "n", "u", "b...".
  Writer& row(const std::vector<std::string>& values) {
    int16(values.size());
    for (const std::string& value : values) {
      byte(value[0]);
      if (value[0] == 't' || value[0] == 'b') sized(std::string_view(value).substr(1));
    }
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;

  Writer& integer(std::uint64_t value, int size) {
    for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) byte(static_cast<int>(value >> shift));
    return *this;
  }
};

constexpr std::uint32_t kOrders = 16385;

std::string orders(const std::vector<std::string>& columns = {"id", "note"}) {
  Writer out('R');
  out.int32(kOrders).text("shop").text("orders").byte('d').int16(columns.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    out.byte(i == 0).text(columns[i]).int32(i == 0 ? 20 : 25).int32(0xFFFFFFFF);
  }
  return out.bytes();
}

/// What `bytes` is, or a failed test.
template <class Kind>
Kind decoded(Decoder& decoder, const std::string& bytes) {
  const auto message = decoder.decode(bytes);
  if (!message) {
    ADD_FAILURE() << message.error().message;
    return {};
  }
  if (!std::holds_alternative<Kind>(*message)) {
    ADD_FAILURE() << "another kind: " << message->index();
    return {};
  }
  return std::get<Kind>(*message);
}

std::string refusal(Decoder& decoder, const std::string& bytes) {
  const auto message = decoder.decode(bytes);
  return message ? "" : message.error().message;
}

std::string shown(const Value& value) {
  return static_cast<char>(value.kind) + std::string(value.data);
}

std::vector<std::string> shown(Tuple tuple) {
  std::vector<std::string> values;
  for (const Value& value : tuple) values.push_back(shown(value));
  return values;
}

using Row = std::vector<std::string>;

TEST(PgOutput, ATransactionBeginsAndCommits) {
  Decoder decoder;
  const auto begin = decoded<Begin>(
      decoder, Writer('B').int64(0x10ABCDEF00).int64(86'400'000'001).int32(4711).bytes());
  EXPECT_EQ(begin.final_lsn, Lsn{0x10ABCDEF00});
  EXPECT_EQ(begin.xid, 4711u);
  EXPECT_EQ(begin.committed_at,
            std::chrono::sys_days(std::chrono::year{2000} / 1 / 2) + std::chrono::microseconds(1));
  const auto commit =
      decoded<Commit>(decoder, Writer('C').byte(0).int64(1).int64(0x20).int64(0).bytes());
  EXPECT_EQ(commit.lsn, Lsn{1});
  EXPECT_EQ(commit.end_lsn, Lsn{0x20});
}

TEST(PgOutput, AnInsertHasTheRelationThatWasSentBefore) {
  Decoder decoder;
  const auto* relation = decoded<const Relation*>(decoder, orders());
  ASSERT_NE(relation, nullptr);
  EXPECT_EQ(relation->schema, "shop");
  EXPECT_EQ(relation->columns.at(0).key, true);
  EXPECT_EQ(relation->columns.at(1).name, "note");
  EXPECT_EQ(relation->columns.at(1).key, false);
  EXPECT_EQ(relation->columns.at(1).modifier, -1);

  const std::string bytes = Writer('I').int32(kOrders).byte('N').row({"t7", "n"}).bytes();
  const auto insert = decoded<Insert>(decoder, bytes);
  EXPECT_EQ(insert.relation, relation);
  EXPECT_EQ(shown(insert.row), (Row{"t7", "n"}));
}

TEST(PgOutput, AnUpdateSaysWhatIsKnownOfTheOldRow) {
  Decoder decoder;
  (void)decoded<const Relation*>(decoder, orders());
  std::string bytes = Writer('U').int32(kOrders).byte('N').row({"t7", "u"}).bytes();
  auto update = decoded<Update>(decoder, bytes);
  EXPECT_EQ(update.before, Before::none);
  EXPECT_TRUE(update.old_row.empty());
  EXPECT_EQ(shown(update.row), (Row{"t7", "u"}));

  bytes =
      Writer('U').int32(kOrders).byte('K').row({"t7", "n"}).byte('N').row({"t8", "b\1\2"}).bytes();
  update = decoded<Update>(decoder, bytes);
  EXPECT_EQ(update.before, Before::key);
  EXPECT_EQ(shown(update.old_row), (Row{"t7", "n"}));
  EXPECT_EQ(shown(update.row), (Row{"t8", "b\1\2"}));

  bytes = Writer('U').int32(kOrders).byte('O').row({"t7", "tx"}).byte('N').row({"t7", "t"}).bytes();
  update = decoded<Update>(decoder, bytes);
  EXPECT_EQ(update.before, Before::row);
  EXPECT_EQ(shown(update.old_row), (Row{"t7", "tx"}));
  EXPECT_EQ(shown(update.row), (Row{"t7", "t"}));
}

TEST(PgOutput, ADeleteHasTheKeyOrTheRow) {
  Decoder decoder;
  (void)decoded<const Relation*>(decoder, orders());
  const std::string by_key = Writer('D').int32(kOrders).byte('K').row({"t7", "n"}).bytes();
  EXPECT_EQ(decoded<Delete>(decoder, by_key).before, Before::key);
  const std::string by_row = Writer('D').int32(kOrders).byte('O').row({"t7", "tx"}).bytes();
  const auto removal = decoded<Delete>(decoder, by_row);
  EXPECT_EQ(removal.before, Before::row);
  EXPECT_EQ(shown(removal.old_row), (Row{"t7", "tx"}));
}

TEST(PgOutput, ATruncateNamesItsTables) {
  Decoder decoder;
  const auto* relation = decoded<const Relation*>(decoder, orders());
  const std::string bytes = Writer('T').int32(1).byte(3).int32(kOrders).bytes();
  const auto truncate = decoded<Truncate>(decoder, bytes);
  ASSERT_EQ(truncate.relations.size(), 1u);
  EXPECT_EQ(truncate.relations[0], relation);
  EXPECT_TRUE(truncate.cascade);
  EXPECT_TRUE(truncate.restart_identity);
}

TEST(PgOutput, AnEmittedMessageMayHoldAnyBytes) {
  Decoder decoder;
  const std::string content("a\0b", 3);
  const std::string bytes = Writer('M').byte(1).int64(5).text("audit").sized(content).bytes();
  const auto emitted = decoded<Emitted>(decoder, bytes);
  EXPECT_TRUE(emitted.transactional);
  EXPECT_EQ(emitted.lsn, Lsn{5});
  EXPECT_EQ(emitted.prefix, "audit");
  EXPECT_EQ(emitted.content, content);
}

TEST(PgOutput, OriginsAndTypesAreNamed) {
  Decoder decoder;
  const std::string origin = Writer('O').int64(9).text("berlin").bytes();
  EXPECT_EQ(decoded<Origin>(decoder, origin).name, "berlin");
  const std::string mood = Writer('Y').int32(99).text("shop").text("mood").bytes();
  const auto type = decoded<Type>(decoder, mood);
  EXPECT_EQ(type.oid, 99u);
  EXPECT_EQ(type.name, "mood");
}

TEST(PgOutput, ARelationWithoutSchemaIsOfTheCatalog) {
  Decoder decoder;
  const auto* relation = decoded<const Relation*>(
      decoder, Writer('R').int32(1).text("").text("t").byte('n').int16(0).bytes());
  EXPECT_EQ(relation->schema, "pg_catalog");
}

TEST(PgOutput, AChangedTableIsSentAgain) {
  Decoder decoder;
  (void)decoded<const Relation*>(decoder, orders());
  (void)decoded<const Relation*>(decoder, orders({"id", "note", "at"}));
  const std::string bytes = Writer('I').int32(kOrders).byte('N').row({"t7", "n", "n"}).bytes();
  EXPECT_EQ(decoded<Insert>(decoder, bytes).row.size(), 3u);
}

TEST(PgOutput, ABrokenDescriptionOfATableReplacesNothing) {
  Decoder decoder;
  (void)decoded<const Relation*>(decoder, orders());
  std::string broken = orders({"a", "b", "c"});
  broken.pop_back();
  EXPECT_NE(refusal(decoder, broken), "");
  const std::string bytes = Writer('I').int32(kOrders).byte('N').row({"t7", "n"}).bytes();
  EXPECT_EQ(decoded<Insert>(decoder, bytes).row.size(), 2u);
}

TEST(PgOutput, WhatDoesNotFollowTheProtocolIsRefusedAndNamed) {
  Decoder decoder;
  (void)decoded<const Relation*>(decoder, orders());
  EXPECT_NE(refusal(decoder, "").find("unknown type"), std::string::npos);
  EXPECT_NE(refusal(decoder, "S").find("unknown type 0x53"), std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('I').int32(5).byte('N').row({}).bytes()).find("relation 5"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('I').int32(kOrders).byte('N').row({"t7"}).bytes())
                .find("shop.orders, which has 2 columns"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('I').int32(kOrders).byte('X').row({"t7", "n"}).bytes())
                .find("where 'N' was expected"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('I').int32(kOrders).byte('N').row({"t7", "q"}).bytes())
                .find("unknown kind 0x71"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('D').int32(kOrders).byte('N').row({"t7", "n"}).bytes())
                .find("where 'K' was expected"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('O').int64(1).text("x").byte(0).bytes()).find("too long"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('T').int32(0xFFFFFFFF).byte(0).bytes()).find("too early"),
            std::string::npos);
  // A length beyond the end, and a negative one.
  EXPECT_NE(refusal(decoder, Writer('M').byte(0).int64(1).text("p").int32(5).byte('x').bytes())
                .find("too early"),
            std::string::npos);
  EXPECT_NE(refusal(decoder, Writer('M').byte(0).int64(1).text("p").int32(0xFFFFFFFF).bytes())
                .find("too early"),
            std::string::npos);
}

std::vector<std::string> samples() {
  return {Writer('B').int64(1).int64(2).int32(3).bytes(),
          Writer('C').byte(0).int64(1).int64(2).int64(3).bytes(),
          Writer('O').int64(1).text("o").bytes(),
          orders({"id", "note"}),
          Writer('Y').int32(1).text("s").text("t").bytes(),
          Writer('I').int32(kOrders).byte('N').row({"t7", "tnote"}).bytes(),
          Writer('U').int32(kOrders).byte('O').row({"t7", "u"}).byte('N').row({"t8", "n"}).bytes(),
          Writer('D').int32(kOrders).byte('K').row({"t7", "n"}).bytes(),
          Writer('T').int32(1).byte(1).int32(kOrders).bytes(),
          Writer('M').byte(1).int64(1).text("p").sized("content").bytes()};
}

TEST(PgOutput, EveryMessageThatIsCutIsRefused) {
  for (const std::string& whole : samples()) {
    Decoder decoder;
    (void)decoded<const Relation*>(decoder, orders());
    for (std::size_t size = 0; size < whole.size(); ++size) {
      EXPECT_NE(refusal(decoder, whole.substr(0, size)), "") << whole[0] << " of " << size;
    }
    EXPECT_EQ(refusal(decoder, whole), "");
    EXPECT_NE(refusal(decoder, whole + "x"), "") << whole[0];
  }
}

using Texts = std::vector<std::pair<bool, std::string>>;  // false: NULL

RC_GTEST_PROP(PgOutput, RowsAreReadAsTheyWereWritten, (const Texts& texts)) {
  Row columns;
  Row values;
  for (const auto& [given, text] : texts) {
    columns.push_back("c" + std::to_string(columns.size()));
    values.push_back(given ? "t" + text : "n");
  }
  Decoder decoder;
  RC_ASSERT(decoder.decode(orders(columns)).has_value());
  const std::string bytes = Writer('I').int32(kOrders).byte('N').row(values).bytes();
  const auto message = decoder.decode(bytes);
  RC_ASSERT(message.has_value());
  RC_ASSERT(shown(std::get<Insert>(*message).row) == values);
}

}  // namespace
}  // namespace relay::postgres::pgoutput
