#include "admin/health.h"

#include <gtest/gtest.h>
#include <simdjson.h>

namespace relay::admin {
namespace {

using status::PipelineStatus;
using status::Snapshot;
using std::chrono::seconds;

const auto kNow = std::chrono::sys_days(std::chrono::year(2026) / 4 / 27) + std::chrono::hours(10);

PipelineStatus pipeline(PipelineState state) {
  PipelineStatus status;
  status.name = "orders-to-nats";
  status.source_type = "outbox";
  status.sink_type = "nats";
  status.owned = true;
  status.report.state = state;
  status.report.since = kNow - seconds(60);
  status.report.last_progress = kNow - seconds(1);
  return status;
}

Snapshot snapshot(std::vector<PipelineStatus> pipelines = {}) {
  Snapshot snapshot;
  snapshot.pipelines = std::move(pipelines);
  snapshot.database_connected = true;
  snapshot.catalog_read = true;
  return snapshot;
}

Error broken() {
  return {ErrorClass::transient, "connection", "127.0.0.1:4222: \"refused\"", "start it", {}};
}

simdjson::dom::element parse(simdjson::dom::parser& parser, const std::string& text) {
  return parser.parse(text).value();
}

TEST(Health, IsUnhealthyWithoutTheDatabaseOrItsSchema) {
  Snapshot away = snapshot();
  away.database_connected = false;
  EXPECT_EQ(health_of(away, kNow), Health::unhealthy);

  Snapshot not_read = snapshot();
  not_read.catalog_read = false;
  EXPECT_EQ(health_of(not_read, kNow), Health::unhealthy);

  Snapshot no_schema = snapshot();
  no_schema.database_error = broken();
  EXPECT_EQ(health_of(no_schema, kNow), Health::unhealthy);
}

TEST(Health, IsUnhealthyAndNotReadyWhileTheControlThreadHangs) {
  Snapshot busy = snapshot();
  busy.control_silent = seconds(15);
  EXPECT_EQ(health_of(busy, kNow), Health::healthy);
  EXPECT_TRUE(is_ready(busy));

  Snapshot hangs = busy;
  hangs.control_silent = seconds(16);
  EXPECT_EQ(health_of(hangs, kNow), Health::unhealthy);
  EXPECT_FALSE(is_ready(hangs));
  EXPECT_EQ(instance_error(hangs)->code, "control_hangs");
  EXPECT_NE(instance_error(hangs)->message.find("16 s"), std::string::npos);

  // What keeps it busy may be the database, which says more.
  hangs.database_error = broken();
  EXPECT_EQ(instance_error(hangs)->code, "connection");
}

TEST(Health, AnInstanceThatStopsMayTakeItsTime) {
  Snapshot stopping = snapshot();
  stopping.control_silent = seconds(60);
  stopping.stopping = true;
  EXPECT_EQ(health_of(stopping, kNow), Health::healthy);
  EXPECT_FALSE(is_ready(stopping));
}

TEST(Health, IsHealthyWithNothingToDo) {
  EXPECT_EQ(health_of(snapshot(), kNow), Health::healthy);
  EXPECT_EQ(health_of(snapshot({pipeline(PipelineState::idle)}), kNow), Health::healthy);
}

TEST(Health, AStandbyIsHealthyWhateverItsPipelinesDoElsewhere) {
  PipelineStatus elsewhere = pipeline(PipelineState::standby);
  elsewhere.owned = false;
  elsewhere.report.has_work = true;
  elsewhere.report.last_progress = {};
  EXPECT_EQ(health_of(snapshot({elsewhere}), kNow), Health::healthy);
}

TEST(Health, OnePipelineWithAnErrorDegrades) {
  PipelineStatus ill = pipeline(PipelineState::misconfigured);
  ill.report.error = broken();
  EXPECT_EQ(health_of(snapshot({pipeline(PipelineState::running), ill}), kNow), Health::degraded);
}

TEST(Health, ASessionWhoseLocksBlockTheRelayDegradesAndIsNamedWithTheRemedy) {
  Snapshot blocked = snapshot();
  blocked.blockers = {{.pid = 4711,
                       .prepared = "",
                       .role = "dba",
                       .application = "psql \"x\"",
                       .holds = "ShareLock on pgtrickle.outbox_orders",
                       .seconds = 12.3}};
  EXPECT_EQ(health_of(blocked, kNow), Health::degraded);
  simdjson::dom::parser parser;
  const auto entry = parse(parser, health_json(blocked, kNow))["blocked_by"].at(0);
  EXPECT_EQ(entry["pid"].get_int64().value(), 4711);
  EXPECT_EQ(entry["message"].get_string().value(),
            "session 4711 (psql \"x\") of the role dba has held for 12 s: ShareLock on "
            "pgtrickle.outbox_orders");
  EXPECT_EQ(entry["remedy"].get_string().value(),
            "end its transaction, or: select pg_terminate_backend(4711)");
}

TEST(Health, WorkWithoutProgressDegradesWhateverTheThreadsDo) {
  PipelineStatus stuck = pipeline(PipelineState::running);
  stuck.report.has_work = true;
  stuck.report.last_progress = kNow - seconds(14);
  EXPECT_EQ(health_of(snapshot({stuck}), kNow), Health::healthy);
  stuck.report.last_progress = kNow - seconds(16);
  EXPECT_EQ(health_of(snapshot({stuck}), kNow), Health::degraded);
}

TEST(Health, WhoIsPausedOnPurposeIsNotIll) {
  PipelineStatus paused = pipeline(PipelineState::paused);
  paused.report.has_work = true;
  paused.report.last_progress = kNow - seconds(3600);
  EXPECT_EQ(health_of(snapshot({paused}), kNow), Health::healthy);
}

TEST(HealthJson, HasTheMembersThatArePublic) {
  PipelineStatus one = pipeline(PipelineState::running);
  one.report.lag = 7;
  one.report.position.id = 42;
  PipelineStatus other = pipeline(PipelineState::standby);
  other.owned = false;
  Snapshot all = snapshot({one, other});
  all.uptime = seconds(42);
  simdjson::dom::parser parser;
  const auto body = parse(parser, health_json(all, kNow));
  EXPECT_EQ(body["status"].get_string().value(), "healthy");
  EXPECT_EQ(body["pipelines_owned"].get_int64().value(), 1);
  EXPECT_EQ(body["uptime_seconds"].get_int64().value(), 42);
  const auto entry = body["pipelines"].at(0);
  EXPECT_EQ(entry["name"].get_string().value(), "orders-to-nats");
  EXPECT_EQ(entry["state"].get_string().value(), "running");
  EXPECT_TRUE(entry["owner"].get_bool().value());
  EXPECT_EQ(entry["lag"].get_int64().value(), 7);
  EXPECT_EQ(entry["position"].get_int64().value(), 42);
  EXPECT_EQ(entry["last_progress_at"].get_string().value(), "2026-04-27T09:59:59.000Z");
  EXPECT_TRUE(entry["last_error"].is_null());
}

TEST(HealthJson, AnErrorIsTextWithItsClassAndRemedyBesideIt) {
  PipelineStatus ill = pipeline(PipelineState::retrying);
  ill.report.error = broken();
  simdjson::dom::parser parser;
  const auto entry = parse(parser, pipeline_json(ill, kNow));
  EXPECT_EQ(entry["last_error"].get_string().value(), "127.0.0.1:4222: \"refused\"");
  EXPECT_EQ(entry["error_class"].get_string().value(), "transient");
  EXPECT_EQ(entry["error_code"].get_string().value(), "connection");
  EXPECT_EQ(entry["remedy"].get_string().value(), "start it");
  EXPECT_FALSE(entry["healthy"].get_bool().value());
}

TEST(HealthJson, WhatIsNotKnownIsNull) {
  PipelineStatus fresh = pipeline(PipelineState::starting);
  fresh.report.last_progress = {};
  simdjson::dom::parser parser;
  const auto entry = parse(parser, pipeline_json(fresh, kNow));
  EXPECT_TRUE(entry["lag"].is_null());
  EXPECT_TRUE(entry["last_progress_at"].is_null());
}

TEST(HealthJson, NamesTheWriterThatHoldsReadingBack) {
  PipelineStatus held = pipeline(PipelineState::running);
  held.oldest_open_writer = {.pid = 4711, .seconds = 12.25};
  simdjson::dom::parser parser;
  const auto entry = parse(parser, pipeline_json(held, kNow));
  EXPECT_EQ(entry["held_back_by"]["pid"].get_int64().value(), 4711);
  EXPECT_NEAR(entry["held_back_by"]["seconds"].get_double().value(), 12.2, 0.06);
}

TEST(HealthJson, ShowsWhatSourceAndSinkReport) {
  PipelineStatus spooling = pipeline(PipelineState::retrying);
  simdjson::dom::parser parser;
  EXPECT_EQ(parse(parser, pipeline_json(spooling, kNow))["source_report"].error(),
            simdjson::NO_SUCH_FIELD);
  spooling.report.source = EndReport{
      "spooling", std::nullopt, {{"backlog_transactions", "", 12345678}, {"age", "", 0.5}}};
  const auto report = parse(parser, pipeline_json(spooling, kNow))["source_report"];
  EXPECT_EQ(report["state"].get_string().value(), "spooling");
  EXPECT_EQ(report["numbers"]["backlog_transactions"].get_double().value(), 12345678);
  EXPECT_EQ(report["numbers"]["age"].get_double().value(), 0.5);
  EXPECT_EQ(report["latest"].error(), simdjson::NO_SUCH_FIELD);
  EXPECT_EQ(report["note"].error(), simdjson::NO_SUCH_FIELD);
  spooling.report.source->note = "the \"slot\" was made anew";
  EXPECT_EQ(
      parse(parser, pipeline_json(spooling, kNow))["source_report"]["note"].get_string().value(),
      "the \"slot\" was made anew");

  spooling.report.sink = EndReport{"counting", std::nullopt, {}, {"p:1", "p:2"}};
  const auto latest = parse(parser, pipeline_json(spooling, kNow))["sink_report"]["latest"];
  EXPECT_EQ(latest.get_array().value().size(), 2u);
  EXPECT_EQ(latest.at(1).get_string().value(), "p:2");
}

TEST(HealthJson, SaysWhatIsWrongWithTheDatabase) {
  Snapshot away = snapshot();
  away.database_error = broken();
  simdjson::dom::parser parser;
  const auto body = parse(parser, health_json(away, kNow));
  EXPECT_EQ(body["status"].get_string().value(), "unhealthy");
  EXPECT_EQ(body["remedy"].get_string().value(), "start it");
}

}  // namespace
}  // namespace relay::admin
