#include "backends/pg_outbox/options.h"

#include <gtest/gtest.h>

#include "backends/pg_outbox/table_source.h"
#include "config/checked.h"

namespace relay::pg_outbox {
namespace {

using Codes = std::vector<std::string>;

Codes codes_of(std::string_view json) {
  return config::codes_of_checks(json, source_fields());
}

Result<Options> parsed(std::string_view json) {
  return parse_options(config::checked(json, source_fields()));
}

TEST(PgOutboxOptions, TheDatabaseIsRequired) {
  EXPECT_EQ(codes_of(R"({"outbox":"o"})"), Codes{"missing_option"});
}

TEST(PgOutboxOptions, AnOutboxByEitherName) {
  EXPECT_EQ(parsed(R"({"url":"u","outbox":"o"})")->outbox, "o");
  EXPECT_EQ(parsed(R"({"url":"u","stream_table":"o"})")->outbox, "o");
}

TEST(PgOutboxOptions, ATableWithItsColumns) {
  const auto options = parsed(R"({"url":"u","table":"s.t","xid_column":"x","payload_column":"p",
      "event_id_column":"e","event_type_column":"w","key_column":"k","headers_column":"h",
      "created_at_column":"c","poll_interval":"5ms","group":"g"})");
  EXPECT_EQ(options->table, "s.t");
  EXPECT_EQ(options->id_column, "id");
  EXPECT_EQ(options->xid_column, "x");
  EXPECT_EQ(options->payload_column, "p");
  EXPECT_EQ(options->event_id_column, "e");
  EXPECT_EQ(options->event_type_column, "w");
  EXPECT_EQ(options->key_column, "k");
  EXPECT_EQ(options->headers_column, "h");
  EXPECT_EQ(options->created_at_column, "c");
  EXPECT_EQ(options->poll_interval, std::chrono::milliseconds(5));
  EXPECT_EQ(options->group, "g");
}

TEST(PgOutboxOptions, OneOfOutboxAndTable) {
  EXPECT_EQ(codes_of(R"({"url":"u"})"), Codes{"missing_option"});
  EXPECT_EQ(codes_of(R"({"url":"u","outbox":"o","table":"t"})"), Codes{"conflict"});
  EXPECT_EQ(parsed(R"({"url":"u","outbox":"o","id_column":"i"})").error().code, "which_outbox");
}

TEST(PgOutboxSources, WithoutAServerOrADatabaseTheySayWhere) {
  const auto options = parsed(R"({"url":"postgresql://u:hidden@127.0.0.1:1/x","table":"t",
      "connect_timeout":"1s"})");
  TableSource source(*options, BackendContext{});
  const auto opened = source.open({});
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("127.0.0.1:1/x"), std::string::npos);
  EXPECT_EQ(opened.error().message.find("hidden"), std::string::npos);
}

}  // namespace
}  // namespace relay::pg_outbox
