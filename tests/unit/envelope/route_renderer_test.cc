#include "envelope/route_renderer.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>

#include "envelope/batches.h"
#include "envelope/rows.h"

namespace relay::envelope {
namespace {

/// A renderer that has begun with a record of the table "orders" with the key columns `keys`.
struct Fixture {
  explicit Fixture(EncoderOptions options, std::vector<std::string> keys = {"id"},
                   std::string_view headers = "")
      : plan(*Plan::make(std::move(options))), batch("orders", std::move(keys)) {
    Record& record = batch.delta(7, {}, {});
    record.headers = batch.copy(headers);
    output.emplace(batch.take());
    output->begin(0);
    refusals.start("orders");
    renderer.start(*output);
    headers_readable = renderer.begin(output->record());
  }
  RenderedRoute row(std::string_view json, std::string_view op = "insert") {
    const TestRows rows{json};
    RenderedRoute rendered;
    renderer.render_row(rendered, op, *rows, 0);
    return rendered;
  }

  Plan plan;
  Batch batch;
  JsonReader reader;
  Refusals refusals;
  RouteRenderer renderer{plan, reader, refusals};
  std::optional<Output> output;
  bool headers_readable = false;
};

std::string key_of(bool row_mode, std::string_view json, std::vector<std::string> keys) {
  EncoderOptions options;
  options.row_mode = row_mode;
  const RenderedRoute rendered = Fixture(std::move(options), std::move(keys)).row(json);
  return rendered.refused ? rendered.refused->code : std::string(rendered.key());
}

TEST(RouteRenderer, RendersSubjectKeyAndHeadersOfARow) {
  EncoderOptions options;
  options.subject_template = "{schema}.{stream_table}.{op}.{{ region }}";
  options.key_template = "{key}/{outbox_id}";
  options.headers = {{"region", "in {{ region }}"}};
  Fixture fixture(options);
  const Route route = fixture.renderer.keep(fixture.row(R"({"id": 5, "region": "eu"})"));
  EXPECT_EQ(route.subject, "public.orders.insert.eu");
  EXPECT_EQ(route.key, "5/7");
  ASSERT_EQ(route.headers.size(), 1u);
  EXPECT_EQ(route.headers[0].name, "region");
  EXPECT_EQ(route.headers[0].value, "in eu");
  EXPECT_EQ(route.refused, nullptr);
}

TEST(RouteRenderer, TakesTheKeyOfTheRowInRowModeAndElseTheTable) {
  EXPECT_EQ(key_of(true, R"({"id": "a"})", {"id"}), "a");
  EXPECT_EQ(key_of(true, R"({"id": "a", "shop": 2})", {"id", "shop"}), R"(["a",2])");
  EXPECT_EQ(key_of(true, R"({"id": "a"})", {}), "orders");
  EXPECT_EQ(key_of(false, R"({"id": "a"})", {"id"}), "orders");
}

TEST(RouteRenderer, RefusesARowWithoutTheKeyOrTheColumnThatItNeeds) {
  EXPECT_EQ(key_of(true, R"({"v": 1})", {"id"}), "no_key");
  EncoderOptions options;
  options.subject_template = "orders.{{ region }}";
  Fixture fixture(options);
  const RenderedRoute rendered = fixture.row(R"({"id": 1})");
  ASSERT_NE(rendered.refused, nullptr);
  EXPECT_EQ(rendered.refused->code, "missing_column");
  EXPECT_EQ(rendered.subject(), "");
  EXPECT_EQ(rendered.key(), "orders");
}

TEST(RouteRenderer, RendersEachColumnAsNullWhereThereIsNoRow) {
  EncoderOptions options;
  options.subject_template = "{op}.{key}.{{ region }}";
  Fixture fixture(options);
  EXPECT_EQ(fixture.renderer.of_record("refresh", "orders").subject, "refresh._null._null");
  EXPECT_EQ(fixture.renderer.of_event("paid", "k", {}).subject, "paid.k._null");
  EXPECT_EQ(fixture.renderer.of_event("", "", {}).subject, "_null._null._null");
}

TEST(RouteRenderer, ForgetsTheKeyOfAnEvent) {
  EncoderOptions options;
  options.subject_template = "{key}";
  Fixture fixture(options);
  EXPECT_EQ(fixture.renderer.of_event("paid", "k", {}).subject, "k");
  EXPECT_EQ(fixture.renderer.of_record("refresh", "orders").subject, "_null");
}

TEST(RouteRenderer, SaysWhetherTheHeadersOfARecordCanBeRead) {
  EXPECT_TRUE(Fixture({}, {"id"}, R"({"a": "b"})").headers_readable);
  EXPECT_FALSE(Fixture({}, {"id"}, "[1]").headers_readable);
}

TEST(RouteRenderer, KeepsAConstantSubjectOfRoutesAfterARefusedOne) {
  EncoderOptions options;
  options.subject_template = "constant";
  options.key_template = "{{ region }}";
  Fixture fixture(options);
  EXPECT_EQ(fixture.renderer.keep(fixture.row(R"({"region": "a"})")).subject, "constant");
  EXPECT_EQ(fixture.renderer.keep(fixture.row("{}")).subject, "");
  EXPECT_EQ(fixture.renderer.keep(fixture.row(R"({"region": "b"})")).subject, "constant");
}

}  // namespace
}  // namespace relay::envelope
