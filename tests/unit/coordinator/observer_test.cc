#include "coordinator/observer.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "coordinator/snapshots.h"
#include "state/dead_letters.h"

namespace relay::coordinator {
namespace {

class SpoolingSource final : public Source {
 public:
  Result<void> open(std::stop_token) override { return {}; }
  Result<RecordBatch> read(const ReadLimits&, Deadline, std::stop_token) override {
    return RecordBatch();
  }
  Result<void> acknowledge(const Position&, std::span<const DeadLetter>) override { return {}; }
  std::optional<std::int64_t> lag() override { return std::nullopt; }
  void close() override {}
  std::optional<EndReport> report() const override {
    const Error slot_lost{ErrorClass::transient, "slot_lost", "the slot is gone", "wait", {}};
    return EndReport{"spooling", slot_lost, {{"backlog_transactions", "Waiting", 7}}};
  }
};

class NoSink final : public Sink {
 public:
  Result<void> open(std::stop_token) override { return {}; }
  std::vector<Outcome> deliver(std::span<const Message>, Deadline, std::stop_token) override {
    return {};
  }
  void close() override {}
};

TEST(Observer, TellsWhatASourceReports) {
  Registry registry;
  postgres::Pool pool({}, 1);
  Metrics metrics("postgres_stream_");
  PipelineTable table;
  {
    PipelineSpec spec;
    spec.name = "orders";
    const MutexLock lock(table.mutex);
    const std::vector<Reconciler::Wanted> wanted = {{"orders", "1"}};
    table.reconciler.follow(wanted);
    table.reconciler.took(std::vector<std::string>{"orders"});
    PipelineEntry& entry = table.entries["orders"];
    entry.config.name = "orders";
    entry.assembled.pipeline = std::make_unique<Pipeline>(
        spec, std::make_unique<SpoolingSource>(), nullptr, std::make_unique<NoSink>(),
        std::make_unique<state::DeadLetterTable>(pool, state::relay_dead_letters(), "group",
                                                 "orders"),
        metrics.pipeline("orders"), PipelineHooks{});
  }
  SchemaWatch schema({});
  Observer(table, registry, pool, metrics, {}).look_for_causes(false, schema);

  const status::Snapshot snapshot = Snapshots(table, "worker", "group").take();
  ASSERT_EQ(snapshot.pipelines.size(), 1u);
  const status::PipelineStatus& status = snapshot.pipelines[0];
  ASSERT_TRUE(status.report.source);
  EXPECT_EQ(status.report.source->state, "spooling");
  ASSERT_EQ(status.causes.size(), 1u);
  EXPECT_EQ(status.causes[0].error.code, "slot_lost");
  EXPECT_TRUE(is_degraded(status, std::chrono::system_clock::now()));
  EXPECT_NE(metrics.text().find("\npostgres_stream_backlog_transactions{pipeline=\"orders\"} 7\n"),
            std::string::npos);
}

}  // namespace
}  // namespace relay::coordinator
