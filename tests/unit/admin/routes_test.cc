#include "admin/routes.h"

#include <gtest/gtest.h>

#include <string>

#include "admin/raw_client.h"

namespace relay::admin {
namespace {

class TestInstance final : public status::Instance {
 public:
  TestInstance() {
    snapshot_.database_connected = snapshot_.catalog_read = true;
    snapshot_.worker_id = "worker-1";
    status::PipelineStatus orders;
    orders.name = "orders";
    orders.owned = true;
    orders.report.state = PipelineState::running;
    snapshot_.pipelines = {orders};
  }
  status::Snapshot snapshot() const override { return snapshot_; }
  postgres::Pool* changes() override { return nullptr; }
  std::vector<status::DeadLetters> dead_letters() override { return {}; }
  void lose_database() { snapshot_.database_connected = false; }

 private:
  status::Snapshot snapshot_;
};

class RoutesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started = serve("127.0.0.1:0", instance_, metrics_, "");
    ASSERT_TRUE(started);
    server_ = std::move(*started);
  }
  std::string get(const std::string& path) const {
    Client client(server_->port());
    client.send("GET " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    return client.read_all();
  }
  static bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  TestInstance instance_;
  Metrics metrics_{"postgres_stream_"};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(RoutesTest, ShowWhatAnInstanceSaysOfItself) {
  const std::string health = get("/health");
  EXPECT_TRUE(health.starts_with("HTTP/1.1 200")) << health;
  EXPECT_TRUE(has(health, R"("instance":"worker-1")"));
  EXPECT_TRUE(has(health, R"("name":"orders","state":"running","owner":true)"));
  EXPECT_TRUE(get("/health/ready").starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(has(get("/api/pipelines/orders"), R"("name":"orders")"));
  EXPECT_TRUE(get("/api/pipelines/none").starts_with("HTTP/1.1 404"));
}

TEST_F(RoutesTest, ShowTheMetricsOfTheProgram) {
  EXPECT_TRUE(has(get("/metrics"), "\npostgres_stream_build_info{"));
}

TEST_F(RoutesTest, SayThatAnInstanceWithoutItsDatabaseIsUnhealthy) {
  instance_.lose_database();
  EXPECT_TRUE(get("/health").starts_with("HTTP/1.1 503"));
  EXPECT_TRUE(get("/health/ready").starts_with("HTTP/1.1 503"));
}

}  // namespace
}  // namespace relay::admin
