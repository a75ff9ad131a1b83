#include "backends/pg_inbox/column_choice.h"

#include <gtest/gtest.h>

#include "backends/pg_inbox/statements.h"

namespace relay::pg_inbox {
namespace {

using Column = TableFacts::Column;

Column column(std::string name, std::string type_name, int modifier = -1) {
  return {.name = std::move(name),
          .type = type_name,
          .type_schema = "pg_catalog",
          .type_name = type_name,
          .modifier = modifier};
}

TableFacts table(Column id) {
  TableFacts facts;
  facts.table = R"("s"."t")";
  facts.role = "relay";
  facts.unique_indexes = {{.name = "t_pkey", .columns = id.name, .column = id.name}};
  facts.columns = {std::move(id), column("payload", "jsonb")};
  return facts;
}

TableFacts table() {
  return table(column("event_id", "text"));
}

Result<Target> chosen(const TableFacts& facts, std::map<std::string, std::string> column_map = {}) {
  Options options;
  options.column_map = std::move(column_map);
  return choose_columns(facts, options, {});
}

void expect_refused(const TableFacts& facts, std::string_view says, std::string_view remedy,
                    std::map<std::string, std::string> column_map = {}) {
  const auto target = chosen(facts, std::move(column_map));
  ASSERT_FALSE(target) << says;
  EXPECT_EQ(target.error().error_class, ErrorClass::misconfigured);
  EXPECT_NE(target.error().message.find(says), std::string::npos) << target.error().message;
  EXPECT_NE(target.error().remedy.find(remedy), std::string::npos) << target.error().remedy;
}

TEST(ColumnChoice, OnlyTypesThatKeepIdsApartHoldIds) {
  for (const char* type : {"text", "varchar", "uuid", "int2", "int4", "int8", "bytea", "numeric"}) {
    EXPECT_TRUE(chosen(table(column("event_id", type)))) << type;
  }
  for (const char* type : {"name", "char", "bpchar", "float4", "float8", "money", "timestamp",
                           "timestamptz", "date", "interval", "bit", "inet", "jsonb", "_text"}) {
    EXPECT_FALSE(chosen(table(column("event_id", type)))) << type;
  }
  EXPECT_TRUE(chosen(table(column("event_id", "varchar", 16))));
  expect_refused(table(column("event_id", "numeric", (6 << 16) + 4)), "different ids", "TYPE text");
}

TEST(ColumnChoice, TypesOfUsersHoldNoIdsUnlessTheyAreEnums) {
  Column id = column("event_id", "citext");
  id.type_schema = "public";
  expect_refused(table(id), "keep different ids apart", "TYPE text");
  id.type_name = "text";
  expect_refused(table(id), "keep different ids apart", "TYPE text");
  id.type_kind = 'e';
  EXPECT_TRUE(chosen(table(id)));
}

TEST(ColumnChoice, EqualityOfIdsIsThatOfTheirLetters) {
  Column id = column("event_id", "text");
  id.deterministic = false;
  expect_refused(table(id), "nondeterministic", "COLLATE");
  TableFacts facts = table();
  facts.unique_indexes.push_back(
      {.name = "loose", .columns = "event_id", .column = "event_id", .exact = false});
  expect_refused(facts, "loose", "CREATE UNIQUE INDEX");
}

TEST(ColumnChoice, TheIdIsUniqueByAnIndexThatOnConflictCanUse) {
  TableFacts facts = table();
  facts.unique_indexes[0].immediate = false;
  expect_refused(facts, "DEFERRABLE", R"(DROP CONSTRAINT "t_pkey", ADD CONSTRAINT)");
  // One that can be used beside it does not help: PostgreSQL takes both.
  facts.unique_indexes.push_back({.name = "good", .columns = "event_id", .column = "event_id"});
  expect_refused(facts, "DEFERRABLE", "ALTER TABLE");
  facts = table();
  facts.unique_indexes[0].partial = true;
  expect_refused(facts, "partial", "must be unique");
  facts.unique_indexes[0] = {.name = "two", .columns = "event_id, at"};
  expect_refused(facts, "by itself", "must be unique");
  facts.unique_indexes[0] = {
      .name = "broken", .columns = "event_id", .column = "event_id", .valid = false};
  expect_refused(facts, "not valid", "must be unique");
  facts.unique_indexes.clear();
  expect_refused(facts, "must be unique", "CREATE UNIQUE INDEX");
  facts.kind = 'v';
  EXPECT_TRUE(chosen(facts)) << "the server plans the statement, and knows";
}

TEST(ColumnChoice, WhatWouldRefuseEveryRowIsSaidBefore) {
  TableFacts facts = table();
  facts.columns.push_back(column("tenant", "int4"));
  facts.columns.back().not_null = true;
  expect_refused(facts, R"("tenant")", "SET DEFAULT");
  facts.before_trigger = true;
  EXPECT_TRUE(chosen(facts)) << "the trigger may fill it";
  facts.columns.back().domain_not_null = true;
  expect_refused(facts, R"("tenant")", "SET DEFAULT");
  EXPECT_TRUE(chosen(facts, {{"subject", "tenant"}}));

  facts = table();
  facts.columns.push_back(column("nr", "int8"));
  facts.columns.back().forbidden_sequence = "s.q";
  expect_refused(facts, "s.q", "GRANT USAGE ON SEQUENCE s.q TO relay");
  facts = table();
  facts.may_write = false;
  expect_refused(facts, "may not write", "GRANT SELECT, INSERT");
  facts = table();
  facts.lets_insert = false;
  expect_refused(facts, "row security", "FOR insert TO relay WITH CHECK");
  facts = table();
  facts.lets_see = false;
  expect_refused(facts, "row security", "FOR select TO relay USING");
  facts = table();
  facts.rule = "r";
  expect_refused(facts, "rule", "DROP RULE");
  facts = table();
  facts.kind = 'f';
  expect_refused(facts, "neither a table nor a view", "url");
}

TEST(ColumnChoice, AGeneratedColumnIsLeftOutUnlessItIsAskedFor) {
  TableFacts facts = table();
  facts.columns.push_back(column("event_type", "text"));
  facts.columns.back().generated = true;
  const auto target = chosen(facts);
  ASSERT_TRUE(target);
  EXPECT_EQ(target->columns.size(), 2u);
  expect_refused(facts, "GENERATED ALWAYS", "column_map", {{"event_type", "event_type"}});
  facts = table();
  facts.columns[0].generated = true;
  expect_refused(facts, "GENERATED ALWAYS", "column_map");
  facts = table();
  facts.columns[1].generated = true;
  expect_refused(facts, "GENERATED ALWAYS", "column_map");
}

TEST(ColumnChoice, AColumnThatCutsWhatItIsGivenTakesNothing) {
  for (const char* type : {"name", "char"}) {
    TableFacts facts = table();
    facts.columns.push_back(column("source", type));
    expect_refused(facts, "cuts", R"(column_map = {"source": ""})");
    EXPECT_TRUE(chosen(facts, {{"source", ""}}));
  }
}

TEST(ColumnChoice, NamesAreThoseOfThePipelineThenOfTheInbox) {
  TableFacts facts = table(column("id", "text"));
  facts.columns[1].name = "body";
  const std::map<std::string, std::string> names = {{"event_id", "id"}, {"payload", "body"}};
  EXPECT_TRUE(choose_columns(facts, {}, names));
  EXPECT_TRUE(chosen(facts, names));
  expect_refused(facts, "no column \"event_id\"", "column_map", {{"payload", "body"}});
  expect_refused(facts, "no column \"kind\"", "column_map",
                 {{"event_id", "id"}, {"payload", "body"}, {"event_type", "kind"}});
}

std::string statement_for(Column id, std::string (*make)(const Target&)) {
  const auto target = chosen(table(std::move(id)));
  return target ? make(*target) : target.error().message;
}

TEST(InsertStatement, WritesEachColumnFromAnArray) {
  Column id = column("i\"d", "text");
  TableFacts facts = table(id);
  const auto target = chosen(facts, {{"event_id", "i\"d"}});
  ASSERT_TRUE(target);
  const std::string sql = insert_statement(*target);
  EXPECT_NE(sql.find(R"(insert into "s"."t" ("i""d", "payload"))"), sql.npos) << sql;
  EXPECT_NE(sql.find(R"(x.v1::"pg_catalog"."text", x.v2::"pg_catalog"."jsonb")"), sql.npos) << sql;
  EXPECT_NE(sql.find(R"(on conflict ("i""d") do nothing returning "i""d")"), sql.npos) << sql;
  EXPECT_NE(sql.find("synchronous_commit"), sql.npos);
}

TEST(InsertStatement, NeverCastsToALength) {
  const std::string sql = statement_for(column("event_id", "varchar", 16), insert_statement);
  EXPECT_NE(sql.find("length(x.v1) > 12"), sql.npos) << sql;
  EXPECT_NE(sql.find(R"(end)::"pg_catalog"."varchar")"), sql.npos) << sql;
}

TEST(LookStatement, ComparesJsonbByValueAndOtherTypesAsTheyAreWritten) {
  const std::string sql = statement_for(column("event_id", "uuid"), look_statement);
  EXPECT_NE(sql.find(R"(t."payload" is not distinct from x.v2::jsonb)"), sql.npos) << sql;
  TableFacts facts = table();
  facts.columns[1] = column("payload", "json");
  EXPECT_NE(look_statement(*chosen(facts)).find("format('%s', x.v2::json)"), sql.npos);
}

}  // namespace
}  // namespace relay::pg_inbox
