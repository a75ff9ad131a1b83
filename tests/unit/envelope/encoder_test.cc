#include "envelope/encoder.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "envelope/batches.h"

namespace relay::envelope {
namespace {

using Strings = std::vector<std::string>;

EncoderOptions to_subject(std::string subject) {
  EncoderOptions options;
  options.subject_template = std::move(subject);
  return options;
}

std::string row(int id, const std::string& region, int value = 0) {
  return fmt::format(R"({{"id": {}, "region": "{}", "v": {}}})", id, region, value);
}

TEST(Split, ByColumnGivesEachSubjectItsOwnRows) {
  Batch batch;
  batch.delta(1, {row(1, "europe"), row(2, "asia"), row(3, "europe")}, {row(4, "asia")});
  const MessageBatch messages = encode(to_subject("revenue.{{ region }}"), std::move(batch));
  ASSERT_EQ(routes(messages), (Strings{"revenue.asia delta", "revenue.europe insert"}));
  EXPECT_EQ(inserted(messages.messages[0]), "[" + row(2, "asia") + "]");
  EXPECT_EQ(deleted(messages.messages[0]), "[" + row(4, "asia") + "]");
  EXPECT_EQ(inserted(messages.messages[1]), "[" + row(1, "europe") + ", " + row(3, "europe") + "]");
  EXPECT_EQ(between(messages.messages[1].body, "\"delta_rows\":", ","), "2");
}

TEST(Split, ByOpSendsInsertsUpdatesAndDeletesTheirOwnWays) {
  Batch batch;
  batch.delta(1, {row(1, "eu", 2), row(3, "eu")}, {row(1, "eu", 1), row(2, "eu")});
  const MessageBatch messages = encode(to_subject("t.{stream_table}.{op}"), std::move(batch));
  ASSERT_EQ(routes(messages), (Strings{"t.orders.update update", "t.orders.delete delete",
                                       "t.orders.insert insert"}));
  EXPECT_EQ(inserted(messages.messages[0]), "[" + row(1, "eu", 2) + "]");
  EXPECT_EQ(deleted(messages.messages[0]), "[" + row(1, "eu", 1) + "]");
}

TEST(Split, FullRefreshRowsGoToRefresh) {
  Batch batch;
  delta_of(batch.delta(1, {row(1, "eu")}, {})).full_refresh = true;
  batch.truncate(2);
  const MessageBatch messages = encode(to_subject("t.{op}"), std::move(batch));
  EXPECT_EQ(routes(messages), (Strings{"t.refresh refresh", "t.refresh refresh"}));
  EXPECT_TRUE(messages.messages[0].full_refresh);
}

TEST(Split, UpdateThatMovesARowIsADeleteThereAndThenAnInsertHere) {
  Batch batch;
  batch.delta(1, {row(1, "asia", 2)}, {row(1, "europe", 1)});
  const MessageBatch messages = encode(to_subject("r.{{ region }}.{op}"), std::move(batch));
  ASSERT_EQ(routes(messages), (Strings{"r.europe.delete delete", "r.asia.insert insert"}));
}

TEST(Split, DeletingHalvesOfMovesAreSentFirst) {
  // Rows 1 and 2 swap regions: a consumer of both subjects must see the deletes first.
  Batch batch;
  batch.delta(1, {row(1, "asia", 2), row(2, "europe", 2)},
              {row(1, "europe", 1), row(2, "asia", 1)});
  const MessageBatch messages = encode(to_subject("r.{{ region }}"), std::move(batch));
  ASSERT_EQ(routes(messages),
            (Strings{"r.europe delete", "r.asia delete", "r.asia insert", "r.europe insert"}));
}

TEST(Split, WithoutAKeyAnUpdateIsADeleteAndAnInsert) {
  Batch batch("orders", {});
  batch.delta(1, {row(1, "eu", 2)}, {row(1, "eu", 1)});
  EXPECT_EQ(routes(encode(to_subject("t.{op}"), std::move(batch))),
            (Strings{"t.delete delete", "t.insert insert"}));
}

TEST(Split, KeysAreComparedAsNumbersAndNotAsText) {
  Batch batch;
  batch.delta(1, {R"({"id": 1.0, "v": 2})"}, {R"({"id": 1, "v": 1})"});
  EXPECT_EQ(routes(encode(to_subject("t.{op}"), std::move(batch))), (Strings{"t.update update"}));
}

TEST(Split, AKeyThatOccursTwiceIdentifiesNothing) {
  Batch batch;
  batch.delta(1, {row(1, "eu", 3), row(1, "eu", 4)}, {row(1, "eu", 1)});
  EXPECT_EQ(routes(encode(to_subject("t.{op}"), std::move(batch))),
            (Strings{"t.delete delete", "t.insert insert"}));
}

TEST(Split, NullRendersUnderscoreNull) {
  Batch batch;
  batch.delta(1, {R"({"id": 1, "region": null})"}, {});
  EXPECT_EQ(encode(to_subject("r.{{ region }}"), std::move(batch)).messages.at(0).subject,
            "r._null");
}

TEST(Split, StateWithoutRowsGoesWhereNullsGo) {
  Batch batch;
  batch.truncate(1);
  EXPECT_EQ(routes(encode(to_subject("r.{{ region }}.{op}"), std::move(batch))),
            (Strings{"r._null.refresh refresh"}));
}

TEST(Op, OfADeltaIsTheOneThatAllItsRowsHave) {
  const auto op_of = [](const Strings& inserted, const Strings& deleted) {
    Batch batch;
    batch.delta(1, inserted, deleted);
    return std::string(encode({}, std::move(batch)).messages.at(0).op);
  };
  EXPECT_EQ(op_of({row(1, "a")}, {}), "insert");
  EXPECT_EQ(op_of({}, {row(1, "a")}), "delete");
  EXPECT_EQ(op_of({row(1, "a"), row(2, "a")}, {row(2, "b"), row(1, "b")}), "update");
  EXPECT_EQ(op_of({row(1, "a")}, {row(2, "a")}), "delta");
  EXPECT_EQ(op_of({row(1, "a"), row(2, "a")}, {row(2, "b")}), "delta");
}

TEST(Refused, IsOnlyTheRowThatLacksTheColumn) {
  Batch batch;
  batch.delta(1, {row(1, "eu"), R"({"id": 2})", row(3, "us")}, {});
  const MessageBatch messages = encode(to_subject("r.{{ region }}"), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 3u);
  EXPECT_FALSE(messages.messages[0].refused);
  EXPECT_FALSE(messages.messages[2].refused);
  const Message& refused = messages.messages[1];
  ASSERT_TRUE(refused.refused);
  EXPECT_EQ(refused.refused->error_class, ErrorClass::rejected);
  EXPECT_EQ(refused.refused->message,
            "orders: a template asks for column region, which the row does not have");
  EXPECT_EQ(inserted(refused), R"([{"id": 2}])");
}

TEST(Refused, IsARecordThatTheSourceCouldNotRead) {
  Batch batch;
  batch.delta(1, {row(1, "eu")}, {});
  Record& large = batch.delta(2, {}, {});
  large.refused = std::make_shared<Error>(
      Error{ErrorClass::rejected, "too_large", "larger than max_record_bytes", "", {}});
  batch.delta(3, {row(3, "eu")}, {});
  const MessageBatch messages = encode({}, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 3u);
  EXPECT_EQ(messages.messages[1].refused->code, "too_large");
  EXPECT_TRUE(messages.messages[1].id.starts_with("p:2-0a1b2c3d:0."));
  EXPECT_EQ(messages.messages[1].record, 1u);
}

TEST(Refused, IsWhatIsNoListOfRows) {
  for (const char* text : {"[", "[1]", "{}", "[{\"id\": 1}", "[{\"id\" 1}]", "[{\"id\": 1}]]",
                           "[{\"id\": 1}, ]", "nonsense", "[{\"id\": \"\\ud800\", \"\\q\": 1}]"}) {
    Batch batch;
    Delta& delta = delta_of(batch.delta(1, {}, {}));
    delta.inserted = batch.copy(text);
    delta.inserted_count = 1;
    const MessageBatch messages = encode(to_subject("r.{{ id }}"), std::move(batch));
    ASSERT_EQ(messages.messages.size(), 1u) << text;
    EXPECT_TRUE(messages.messages[0].refused) << text;
    EXPECT_NE(messages.messages[0].body.find(text), std::string_view::npos);
  }
}

TEST(Refused, IsARecordWithUnreadableHeaders) {
  Batch batch;
  batch.event(1, "{}").headers = "[1]";
  const MessageBatch messages = encode({}, std::move(batch));
  ASSERT_TRUE(messages.messages.at(0).refused);
  EXPECT_EQ(messages.messages[0].body, "{}");
}

TEST(Filter, LeavesOutRowsThatDoNotFit) {
  EncoderOptions options;
  options.filter = "v >= 10";
  Batch batch;
  batch.delta(1, {row(1, "eu", 10), row(2, "eu", 9)}, {row(3, "eu", 11)});
  batch.delta(2, {row(1, "eu", 1)}, {});
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_EQ(inserted(messages.messages[0]), "[" + row(1, "eu", 10) + "]");
  EXPECT_EQ(deleted(messages.messages[0]), "[" + row(3, "eu", 11) + "]");
}

TEST(Filter, TellsTheChangeOfTheFilteredTable) {
  EncoderOptions options = to_subject("t.{op}");
  options.filter = "v >= 10";
  Batch batch;
  batch.delta(1, {row(1, "eu", 10), row(2, "eu", 9), row(3, "eu", 12)},
              {row(1, "eu", 9), row(2, "eu", 10), row(3, "eu", 11)});
  EXPECT_EQ(routes(encode(options, std::move(batch))),
            (Strings{"t.delete delete", "t.update update", "t.insert insert"}));
}

TEST(Filter, RefusesRowsThatItCannotJudge) {
  EncoderOptions options;
  options.filter = "amount > 10";
  Batch batch;
  batch.delta(1, {R"({"id": 1})", R"({"id": 2, "amount": "12"})", R"({"id": 3, "amount": 12})"},
              {});
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 3u);
  EXPECT_EQ(messages.messages[0].refused->message,
            "orders: the filter asks for column amount, which the row does not have");
  EXPECT_EQ(messages.messages[1].refused->message,
            "orders: the filter cannot compare column amount (a text) with a number");
  EXPECT_EQ(inserted(messages.messages[2]), R"([{"id": 3, "amount": 12}])");
}

TEST(Filter, ANewStateIsToldEvenWhenNothingOfItFits) {
  EncoderOptions options;
  options.filter = "v >= 10";
  Batch batch;
  delta_of(batch.delta(1, {row(1, "eu", 1)}, {})).full_refresh = true;
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_TRUE(messages.messages[0].full_refresh);
  EXPECT_EQ(inserted(messages.messages[0]), "[]");
}

TEST(Columns, AreKeptInTheOrderOfTheRowAndTheKeyAlways) {
  EncoderOptions options;
  options.columns = {"v", "absent"};
  Batch batch;
  batch.delta(1, {row(1, "eu", 7)}, {});
  EXPECT_EQ(inserted(encode(options, std::move(batch)).messages.at(0)), R"([{"id": 1, "v": 7}])");
}

TEST(Columns, MayBeUsedByFilterAndTemplatesThoughTheyAreNotKept) {
  EncoderOptions options = to_subject("r.{{ region }}");
  options.columns = {"v"};
  options.filter = "region = 'eu'";
  Batch batch;
  batch.delta(1, {row(1, "eu", 7), row(2, "us", 7)}, {});
  const MessageBatch messages = encode(options, std::move(batch));
  EXPECT_EQ(routes(messages), (Strings{"r.eu insert"}));
  EXPECT_EQ(inserted(messages.messages[0]), R"([{"id": 1, "v": 7}])");
}

TEST(FullRefresh, IsSkippedWhereThatIsAskedFor) {
  EncoderOptions options;
  options.skip_full_refresh = true;
  Batch batch;
  batch.truncate(1);
  batch.delta(2, {row(1, "eu")}, {});
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_EQ(messages.messages[0].record, 1u);
}

TEST(Cut, KeepsTheRowsOfAnUpdateTogether) {
  EncoderOptions options;
  options.delta_max_rows = 3;
  Batch batch;
  batch.delta(1, {row(1, "eu", 2), row(2, "eu", 2), row(9, "eu")},
              {row(1, "eu", 1), row(2, "eu", 1)});
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 2u);
  EXPECT_EQ(inserted(messages.messages[0]), "[" + row(1, "eu", 2) + "]");
  EXPECT_EQ(inserted(messages.messages[1]), "[" + row(2, "eu", 2) + ", " + row(9, "eu") + "]");
  EXPECT_TRUE(messages.messages[0].body.ends_with(",\"part\":1,\"final\":false}}"));
  EXPECT_TRUE(messages.messages[1].body.ends_with(",\"part\":2,\"final\":true}}"));
  EXPECT_EQ(messages.messages[0].op, "update");
  EXPECT_EQ(messages.messages[1].op, "delta");
}

TEST(Cut, LeavesPartsAlone) {
  EncoderOptions options;
  options.delta_max_rows = 1;
  Batch batch;
  Delta& delta = delta_of(batch.delta(1, {row(1, "eu"), row(2, "eu")}, {}));
  delta.part = 2;
  delta.first_ordinal = 1000;
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_TRUE(messages.messages[0].body.ends_with(",\"part\":2,\"final\":true}}"));
}

TEST(Headers, AreTemplatesAndThoseOfTheRecord) {
  EncoderOptions options;
  options.headers = {{"region", "{{ region }}"}, {"source", "{stream_table}/{outbox_id}"}};
  Batch batch;
  batch.delta(5, {row(1, "eu"), row(2, "us")}, {}).headers =
      batch.copy(R"({"traceparent": "00-ab", "Source": "ignored", "n": 1, "gone": null, )"
                 R"("pgtrickle-id": "x"})");
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 2u);  // one a region, for a message has one header of a name
  std::map<std::string, std::string> headers;
  for (const Header& header : messages.messages[0].headers) {
    headers[std::string(header.name)] = header.value;
  }
  EXPECT_EQ(headers,
            (std::map<std::string, std::string>{
                {"region", "eu"}, {"source", "orders/5"}, {"traceparent", "00-ab"}, {"n", "1"}}));
}

TEST(Keys, TemplateSplitsADeltaToo) {
  EncoderOptions options;
  options.key_template = "{{ region }}/{refresh_id}";
  Batch batch;
  batch.delta(5, {row(1, "eu"), row(2, "us")}, {}).refresh_id = "r1";
  const MessageBatch messages = encode(options, std::move(batch));
  ASSERT_EQ(messages.messages.size(), 2u);
  EXPECT_EQ(messages.messages[0].key, "eu/r1");
  EXPECT_EQ(messages.messages[1].key, "us/r1");
}

TEST(Keys, VariableIsTheRowsPrimaryKey) {
  Batch batch;
  batch.delta(5, {row(1, "eu"), row(2, "us")}, {});
  EXPECT_EQ(routes(encode(to_subject("o.{key}"), std::move(batch))),
            (Strings{"o.1 insert", "o.2 insert"}));
  Batch keyless("orders", {});
  keyless.delta(5, {row(1, "eu")}, {});
  const MessageBatch messages = encode(to_subject("o.{key}"), std::move(keyless));
  ASSERT_TRUE(messages.messages.at(0).refused);
  EXPECT_EQ(messages.messages[0].refused->code, "no_key");
}

TEST(Escape, IsAppliedToValuesAndNotToTheTemplate) {
  EncoderOptions options = to_subject("a.b {{ region }}.{stream_table}");
  options.escape = [](std::string& out, std::string_view value) {
    for (const char c : value) c == '.' ? void(out += "%2E") : void(out += c);
  };
  Batch batch("s.t");
  batch.delta(1, {row(1, "e.u")}, {});
  EXPECT_EQ(encode(options, std::move(batch)).messages.at(0).subject, "a.b e%2Eu.s%2Et");
}

TEST(Ids, HaveTheDocumentedForm) {
  Batch batch;
  batch.delta(42, {row(1, "eu")}, {});
  const MessageBatch messages = encode({}, std::move(batch));
  const std::string id(messages.messages.at(0).id);
  EXPECT_EQ(id.substr(0, 16), "p:42-0a1b2c3d:0.");
  EXPECT_EQ(id.size(), 20u);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef", 16), std::string::npos);
}

TEST(Ids, NeverChangeFromReleaseToRelease) {
  // A broker remembers these: a release that made others would deliver twice after an upgrade.
  Batch batch;
  batch.delta(42, {row(1, "eu"), row(2, "us")}, {});
  const MessageBatch whole = encode({}, std::move(batch));
  EXPECT_EQ(whole.messages.at(0).id, "p:42-0a1b2c3d:0.be86");
  Batch again;
  again.delta(42, {row(1, "eu"), row(2, "us")}, {});
  const MessageBatch split = encode(to_subject("r.{{ region }}"), std::move(again));
  EXPECT_EQ(split.messages.at(1).id, "p:42-0a1b2c3d:1.e8ab");
}

TEST(Ids, DifferWhereASecondPipelineCutsDifferently) {
  std::set<std::string> ids;
  for (const bool rows : {false, true}) {
    for (const char* subject : {"a", "b", "a.{{ region }}"}) {
      EncoderOptions options = to_subject(subject);
      options.row_mode = rows;
      Batch batch;
      batch.delta(42, {row(1, "eu"), row(2, "eu")}, {});
      const MessageBatch messages = encode(options, std::move(batch));
      for (const Message& message : messages.messages) ids.insert(std::string(message.id));
    }
  }
  EXPECT_EQ(ids.size(), 9u);
}

TEST(Ids, DifferAfterAFailoverThatGaveTheNumberAgain) {
  Batch batch;
  batch.delta(42, {row(1, "eu")}, {});
  batch.delta(42, {row(1, "eu")}, {}).pgt_id = "ffffffff-0000-4000-8000-000000000000";
  const MessageBatch messages = encode({}, std::move(batch));
  EXPECT_NE(messages.messages[0].id, messages.messages[1].id);
}

TEST(Ids, OfRecordsWithoutAnOutboxComeFromTheirPlace) {
  Batch batch;
  for (int i = 0; i < 3; ++i) {
    Record& record = batch.row(10, RowChange::Op::insert, row(1, "eu"), "");
    record.outbox_id = 0;
    record.pgt_id = {};
    record.row = i < 2 ? i : 0;
    record.mark = i < 2 ? "m" : "n";
  }
  const MessageBatch messages = encode({}, std::move(batch));
  std::set<std::string> ids;
  for (const Message& message : messages.messages) ids.insert(std::string(message.id));
  EXPECT_EQ(ids.size(), 3u);
}

TEST(Options, ThatCannotBeAreRefusedWithTheirName) {
  const auto error_of = [](EncoderOptions options) {
    const auto made = Encoder::make(std::move(options));
    return made ? std::string("none") : made.error().message;
  };
  EncoderOptions format;
  format.wire_format = "avro";
  EXPECT_EQ(error_of(format), "wire_format \"avro\" is not available");
  EXPECT_EQ(error_of(to_subject("a.{opp}")),
            "subject_template, character 3: unknown variable {opp}; did you mean {op}?");
  EncoderOptions key;
  key.key_template = "{{ }}";
  EXPECT_EQ(error_of(key), "key_template, character 1: {{}} names no column");
  EncoderOptions filter;
  filter.filter = "a = ";
  EXPECT_EQ(error_of(filter), "filter, character 5: a column or a value is expected, not the end");
  EncoderOptions header;
  header.headers = {{"Pgtrickle-Id", "x"}};
  EXPECT_EQ(error_of(header), "headers: \"Pgtrickle-Id\" cannot be set");
  header.headers = {{"x", "{"}};
  EXPECT_EQ(error_of(header), "headers, x, character 1: a brace is opened and not closed");
}

/// All that a sink gets of a message.
std::string described(const Message& message) {
  std::string text = fmt::format("{} {} {} {} {} {}", message.id, message.subject, message.key,
                                 message.op, message.stream_table, message.body);
  for (const Header& header : message.headers) {
    text += fmt::format(" {}={}", header.name, header.value);
  }
  return message.refused ? text + " refused: " + message.refused->message : text;
}

/// An update, a truncation, and an insert that lacks the column `region`.
void add_changes(Batch& batch, int id) {
  batch.delta(id, {row(1, "eu", 2)}, {row(1, "eu", 1)});
  batch.truncate(id + 1);
  batch.row(id + 2, RowChange::Op::insert, R"({"id": 3, "code": "a"})", "");
}

TEST(Tables, OfOneBatchGiveTheMessagesThatEachGivesAlone) {
  const std::vector<std::pair<std::string, Strings>> tables = {
      {"orders", {"id"}}, {"customers", {"id", "code"}}, {"orders", {}}, {"orders", {"id"}}};
  for (const std::string format : {"native", "debezium", "cloudevents"}) {
    for (const bool row_mode : {true, false}) {
      if (format == "debezium" && !row_mode) continue;
      EncoderOptions options = to_subject("{schema}.{stream_table}.{{ region }}");
      options.wire_format = format;
      options.row_mode = row_mode;
      options.headers = {{"table", "{stream_table}"}};
      const auto encoded = encoder(options);
      Strings alone;
      Batch all;
      int id = 1;
      for (const auto& [table, key] : tables) {
        Batch one(table, key);
        add_changes(one, id);
        all.use(table, key);
        add_changes(all, id);
        id += 3;
        const MessageBatch messages = encoded->encode(one.take());
        for (const Message& message : messages.messages) alone.push_back(described(message));
      }
      Strings together;
      const MessageBatch messages = encoded->encode(all.take());
      for (const Message& message : messages.messages) together.push_back(described(message));
      EXPECT_EQ(together, alone) << format;
    }
  }
}

TEST(Tables, AreNamedByTheRefusalsOfTheirOwnRows) {
  Batch batch("orders");
  batch.delta(1, {R"({"id": 1})"}, {});
  batch.use("customers", {"id"});
  batch.delta(2, {R"({"id": 1})"}, {});
  const MessageBatch messages = encode(to_subject("t.{{ region }}"), std::move(batch));
  ASSERT_EQ(messages.messages.size(), 2u);
  EXPECT_TRUE(messages.messages[0].refused->message.starts_with("orders: "));
  EXPECT_TRUE(messages.messages[1].refused->message.starts_with("customers: "));
}

TEST(Tables, MayBeMissing) {
  RecordBatch batch;
  batch.records.emplace_back().content.emplace<Event>().payload = "{}";
  const MessageBatch messages = encoder({})->encode(std::move(batch));
  ASSERT_EQ(messages.messages.size(), 1u);
  EXPECT_EQ(messages.messages[0].stream_table, "");
}

TEST(Memory, OfABatchOutlivesTheEncoder) {
  MessageBatch messages;
  {
    Batch batch;
    batch.delta(1, {row(1, "eu")}, {});
    batch.event(2, "{}").headers = batch.copy(R"({"a": "b"})");
    messages = encode(to_subject("static"), std::move(batch));
  }
  EXPECT_EQ(messages.messages[0].subject, "static");
  EXPECT_EQ(messages.messages[1].headers[0].value, "b");
  EXPECT_GT(messages.bytes, 0u);
}

}  // namespace
}  // namespace relay::envelope
