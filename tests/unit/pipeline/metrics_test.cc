#include "pipeline/metrics.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace relay {
namespace {

TEST(Metrics, HaveNamesThatBeginWithThePrefix) {
  Metrics metrics("postgres_stream_");
  metrics.pipeline("orders")->delivered.Increment(3);
  metrics.pool_connections().Set(2);
  metrics.outbox_problem("orders").Set(1);
  std::istringstream text(metrics.text());
  int names = 0;
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with("# HELP ")) continue;
    ++names;
    EXPECT_TRUE(line.starts_with("# HELP postgres_stream_")) << line;
  }
  EXPECT_GT(names, 20);
  EXPECT_NE(
      metrics.text().find("\npostgres_stream_messages_delivered_total{pipeline=\"orders\"} 3"),
      std::string::npos);
}

}  // namespace
}  // namespace relay
